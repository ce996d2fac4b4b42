"""What a reply with failed items amounts to, and what the engines make of a raw."""

import asyncio
import math
from collections.abc import MutableMapping, Sequence
from typing import Any

import httpx2
import pytest
from support.doubles import ScriptedModel
from support.servers import Served

from assay.api.dialects._service import failure_of, probability
from assay.app import create_app
from assay.errors import Overloaded
from assay.scoring.service import ScoringService
from assay.settings import Settings
from assay.types import ItemFailure, ItemResult, ScoreReply
from assay_models.base import ItemError, Options, Prepared, Raw, Score


def result(index: int, failure: str | None = None, **more: object) -> ItemResult:
    score = {"score": None if failure else 2.0, "raw": None if failure else 2.0, "details": {}}
    error = ItemFailure(failure, "so it is") if failure else None
    fixed = {"id": None, "group": None, "channels": {}, "flags": [], "tokens": 1, "source": None}
    status = "error" if failure else "ok"
    return ItemResult(index=index, status=status, error=error, **{**fixed, **score, **more})


@pytest.mark.parametrize(
    ("codes", "status", "retryable"),
    [
        (["input_too_long"], 422, False),
        ([None, "invalid_item", "no_claims"], 422, False),
        (["non_finite_score"], 500, False),
        (["inference_failed", None], 500, False),
        (["sandbox_failed", "parser_unavailable"], 500, False),
        (["input_too_long", "non_finite_score"], 422, False),
        (["shutting_down", "input_too_long"], 422, False),
        (["parser_unavailable"], 503, True),
        (["shutting_down", "parser_unavailable", None], 503, True),
    ],
)
def test_the_status_says_whose_fault_it_is_and_whether_to_come_back(
    codes: Sequence[str | None], status: int, retryable: bool
) -> None:
    error = failure_of([result(index, code) for index, code in enumerate(codes)])
    assert error is not None
    assert (error.status, error.retryable) == (status, retryable)
    assert (error.retry_after is not None) is retryable
    named = [f"items.{index}" for index, code in enumerate(codes) if code]
    assert [problem["field"] for problem in error.problems or []] == named


def test_where_nothing_failed_there_is_no_error() -> None:
    assert failure_of([result(0), result(1)]) is None
    assert failure_of([]) is None


@pytest.mark.parametrize(
    ("scored", "expected"),
    [
        ({"score": 0.5, "raw": 0.0}, 0.5),
        ({"score": 7.0, "raw": -1000.0}, 0.0),
        ({"score": 1.0, "raw": 4.0, "details": {"probabilities": {}}}, 1 / (1 + math.exp(-1))),
        ({"score": 0.0, "raw": None}, 0.0),
        ({"score": 0.75, "raw": None}, 0.75),
    ],
)
def test_a_probability(scored: dict[str, object], expected: float) -> None:
    assert probability(result(0, **scored)) == pytest.approx(expected, abs=1e-12)


async def test_what_passes_is_said_over_http(
    scripted: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlucky(*_: object) -> Prepared:
        raise ItemError("parser_unavailable", "no process to parse in")

    monkeypatch.setattr(ScriptedModel, "prepare", unlucky)
    body = {"prompt": "p", "response": "r", "label": None}
    answer = await scripted.post("/compat/slime/scripted", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (answer.json()["code"], answer.json()["retryable"]) == ("items_failed", True)


async def test_a_score_by_rule_is_a_score(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(
        _: ScriptedModel, prepared: Prepared, raws: Sequence[Raw], options: Options
    ) -> object:
        return [Score(0.0, None, {"reward": 0.0}, flags=("invalid_code",))]

    monkeypatch.setattr(ScriptedModel, "finish", finish)
    async with served(scripted_settings) as client:
        body = {"prompt": "p", "response": "no program", "label": None}
        answer = await client.post("/compat/slime/scripted", json=body)
        assert (answer.status_code, answer.json()) == (200, 0.0)
        ranked = await client.post("/v2/rerank", json={"query": "q", "documents": ["a"]})
        assert ranked.json()["results"] == [{"index": 0, "relevance_score": 0.0}]


async def test_who_leaves_is_held_no_longer(
    scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def refuse(*_: object) -> ScoreReply:
        asked.set()
        raise Overloaded("no room", retry_after=60)

    monkeypatch.setattr(ScoringService, "score", refuse)
    app = create_app(scripted_settings)
    body = b'{"prompt": "p", "response": "r", "label": null}'
    arriving = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        if arriving:
            return arriving.pop()
        await asked.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/compat/slime/scripted",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"47")],
    }
    async with app.router.lifespan_context(app), asyncio.timeout(30):
        await app(scope, receive, send)
    assert sent[0]["status"] == 499
