"""The errors of requests with failed items, and the activation of raws."""

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import Any

import httpx2
import pytest
from support.doubles import ScriptedModel
from support.servers import Served

from assay.api.dialects._service import find_failure, probability
from assay.app import create_app
from assay.errors import Overloaded
from assay.scoring.service import ScoringService
from assay.settings import Settings
from assay.types import ItemFailure, ItemResult, ScoreReply
from assay_models.base import ItemError, Options, Prepared, Raw, Score


def result(index: int, failure: str | None = None, **more: Any) -> ItemResult:
    score = None if failure else 2.0
    fields: dict[str, Any] = {
        "id": None,
        "group": None,
        "channels": {},
        "flags": [],
        "tokens": 1,
        "source": None,
        "score": score,
        "raw": score,
        "details": {},
        "status": "error" if failure else "ok",
        "error": ItemFailure(failure, "so it is") if failure else None,
    }
    return ItemResult(index=index, **{**fields, **more})


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
def test_the_status_depends_on_the_codes_of_the_failed_items(
    codes: Sequence[str | None], status: int, retryable: bool
) -> None:
    error = find_failure([result(index, code) for index, code in enumerate(codes)])
    assert error is not None
    assert (error.status, error.retryable) == (status, retryable)
    assert (error.retry_after is not None) is retryable
    fields = [f"items.{index}" for index, code in enumerate(codes) if code]
    assert [problem["field"] for problem in error.problems or []] == fields


def test_results_without_a_failure_give_no_error() -> None:
    assert find_failure([result(0), result(1)]) is None
    assert find_failure([]) is None


@pytest.mark.parametrize(
    ("scored", "expected"),
    [
        ({"score": 0.5, "raw": 0.0}, 0.5),
        ({"score": 7.0, "raw": -1000.0}, 0.0),
        (
            {
                "score": 1.0,
                "raw": 4.0,
                "channels": {"entailment": 0.73, "neutral": 0.27},
                "details": {"probabilities": {"entailment": 0.73, "neutral": 0.27}},
            },
            0.73,
        ),
        ({"score": -2.5, "raw": -2.5, "details": {"scale": "value"}}, -2.5),
        ({"score": 0.0, "raw": None}, 0.0),
        ({"score": 0.75, "raw": None}, 0.75),
    ],
)
def test_an_activated_score_is_the_labels_probability_the_logistic_of_the_raw_or_the_value(
    scored: dict[str, Any], expected: float
) -> None:
    assert probability(result(0, **scored)) == pytest.approx(expected, abs=1e-12)


async def test_a_temporary_failure_gives_503_with_retry_after(
    scripted: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Prepared:
        raise ItemError("parser_unavailable", "no process to parse in")

    monkeypatch.setattr(ScriptedModel, "prepare", fail)
    body = {"prompt": "p", "response": "r", "label": None}
    answer = await scripted.post("/compat/slime/scripted", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (answer.json()["code"], answer.json()["retryable"]) == ("items_failed", True)


async def test_a_score_without_a_raw_is_served_unchanged(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(
        _: ScriptedModel, prepared: Prepared, raws: Sequence[Raw], options: Options
    ) -> object:
        return [Score(0.0, None, channels={"reward": 0.0}, flags=("invalid_code",))]

    monkeypatch.setattr(ScriptedModel, "finish", finish)
    async with served(scripted_settings) as client:
        body = {"prompt": "p", "response": "no program", "label": None}
        answer = await client.post("/compat/slime/scripted", json=body)
        assert (answer.status_code, answer.json()) == (200, 0.0)
        ranked = await client.post("/v2/rerank", json={"query": "q", "documents": ["a"]})
        assert ranked.json()["results"] == [{"index": 0, "relevance_score": 0.0}]


async def test_a_held_request_ends_when_its_client_disconnects(
    scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = asyncio.Event()

    async def refuse(*_: object) -> ScoreReply:
        called.set()
        raise Overloaded("no room", retry_after=60)

    monkeypatch.setattr(ScoringService, "score", refuse)
    app = create_app(scripted_settings)
    body = b'{"prompt": "p", "response": "r", "label": null}'
    arriving = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        if arriving:
            return arriving.pop()
        await called.wait()
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
