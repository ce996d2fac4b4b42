"""Properties of every dialect: right scores in the client's own format, and no invented ones."""

import json
from collections.abc import Sequence

import httpx2
import pytest
from support.dialect_clients import DIALECT_CLIENTS, DialectClient
from support.dialect_messages import PromptResponse
from support.doubles import Gate, ScriptedModel
from support.scoring_requests import record_calls
from support.servers import Served

from assay.errors import AssayError, ModelFailed, ModelNotReady, Overloaded
from assay.scoring.service import ScoreCall, ScoringService
from assay.settings import Settings
from assay.types import ScoreReply
from assay_models.base import Input, Raw

JSON = {"content-type": "application/json"}
SOON = {"x-assay-timeout-ms": "20"}

every_dialect = pytest.mark.parametrize(
    "dialect", DIALECT_CLIENTS, ids=lambda dialect: dialect.name
)
every_list_dialect = pytest.mark.parametrize(
    "dialect",
    [dialect for dialect in DIALECT_CLIENTS if dialect.takes_lists],
    ids=lambda dialect: dialect.name,
)


async def ask(
    client: httpx2.AsyncClient,
    dialect: DialectClient,
    pairs: Sequence[PromptResponse],
    model: str = "scripted",
    query: str = "",
    **headers: str,
) -> httpx2.Response:
    content = json.dumps(dialect.build_body(pairs)).encode().replace(b"{model}", model.encode())
    route = dialect.route.format(model=model)
    separator = "&" if "?" in route else "?"
    reply = await client.post(
        f"{route}{separator}{query}" if query else route, content=content, headers=JSON | headers
    )
    return await dialect.fetch_result(client, reply)


@every_dialect
@pytest.mark.parametrize("response", ["aaa", "naïve, 日本語, 🦜", 'line\nand "quotes"'])
async def test_a_response_gets_its_score(
    scripted: httpx2.AsyncClient, dialect: DialectClient, response: str
) -> None:
    answer = await ask(scripted, dialect, [("Say it.", response)])
    assert answer.status_code == 200, answer.text
    expected = dialect.transform(len(response))
    assert dialect.read_scores(answer.json()) == pytest.approx([expected], abs=1e-12)


@every_list_dialect
async def test_scores_come_in_the_order_of_the_request(
    scripted: httpx2.AsyncClient, dialect: DialectClient
) -> None:
    answer = await ask(scripted, dialect, [("Say it.", "a" * size) for size in (3, 1, 2)])
    assert answer.status_code == 200, answer.text
    expected = [dialect.transform(size) for size in (3, 1, 2)]
    assert dialect.read_scores(answer.json()) == pytest.approx(expected, abs=1e-12)


@every_list_dialect
async def test_an_empty_list_is_answered_or_rejected(
    scripted: httpx2.AsyncClient, dialect: DialectClient
) -> None:
    answer = await ask(scripted, dialect, [])
    if dialect.empty_reply is None:
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    elif isinstance(dialect.empty_reply, dict):
        assert (answer.status_code, answer.json()) == (200, dialect.empty_reply)
    else:
        assert (answer.status_code, dialect.read_scores(answer.json())) == (
            200,
            dialect.empty_reply,
        )


@every_dialect
@pytest.mark.parametrize("kind", ["application/json", "application/vnd.another+json"])
async def test_the_clients_request_is_answered_with_and_without_the_hot_route(
    scripted: httpx2.AsyncClient, dialect: DialectClient, kind: str
) -> None:
    content = dialect.example.replace(b"{model}", b"scripted")
    route = dialect.route.format(model="scripted")
    reply = await scripted.post(route, content=content, headers={"content-type": kind})
    answer = await dialect.fetch_result(scripted, reply)
    assert answer.status_code == 200, answer.text
    assert dialect.is_expected_reply(answer.json()), answer.text


@every_dialect
async def test_an_unknown_model_is_not_found(
    scripted: httpx2.AsyncClient, dialect: DialectClient
) -> None:
    answer = await ask(scripted, dialect, [("Say it.", "a")], model="other")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


@every_dialect
async def test_an_item_that_is_too_long_has_no_score(
    served: Served, reference_settings: Settings, dialect: DialectClient
) -> None:
    async with served(reference_settings) as client:
        answer = await ask(client, dialect, [("Say it.", "word " * 5000)], model="reference")
        assert dialect.read_item_error(answer).startswith("input_too_long: ")


@pytest.mark.parametrize(
    "dialect",
    [dialect for dialect in DIALECT_CLIENTS if dialect.scores_responses],
    ids=lambda dialect: dialect.name,
)
@pytest.mark.parametrize("side", ["left", "right", "middle"])
async def test_the_url_may_request_truncation(
    served: Served, reference_settings: Settings, dialect: DialectClient, side: str
) -> None:
    prompt, response = "one two", "one " + "word " * 5000 + "two three"
    item = {"prompt": prompt, "response": response}
    native = {"model": "reference", "items": [item], "options": {"truncation": side}}
    async with served(reference_settings) as client:
        answer = await ask(
            client, dialect, [(prompt, response)], model="reference", query=f"truncation={side}"
        )
        (expected,) = (await client.post("/v1/score", json=native)).json()["results"]
        assert expected["flags"] == ["truncated"]
        assert dialect.read_scores(answer.json()) == [expected["score"]]


@every_dialect
async def test_an_unknown_truncation_is_rejected(
    scripted: httpx2.AsyncClient, dialect: DialectClient
) -> None:
    answer = await ask(scripted, dialect, [("a", "b")], query="truncation=top")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["hint"].startswith("parameters of this URL: ")


@every_dialect
@pytest.mark.parametrize(("text", "code"), [("nan", "non_finite"), ("poison", "inference_failed")])
async def test_an_item_without_a_finite_score_fails(
    scripted: httpx2.AsyncClient, dialect: DialectClient, text: str, code: str
) -> None:
    pairs = [("Say it.", text), *([("Say it.", "fine")] if dialect.takes_lists else [])]
    assert dialect.read_item_error(await ask(scripted, dialect, pairs)).startswith(code)


@every_dialect
async def test_a_loading_model_is_refused_with_503(
    loading: httpx2.AsyncClient, dialect: DialectClient
) -> None:
    answer = await ask(loading, dialect, [("Say it.", "a")], **SOON)
    assert dialect.read_refusal(answer) == (503, "model_not_ready")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Gate that blocks the device until it is opened."""
    gate = Gate()

    def predict(_: ScriptedModel, inputs: Sequence[Input]) -> Sequence[Raw]:
        return gate(inputs)

    monkeypatch.setattr(ScriptedModel, "predict", predict)
    return gate


@every_dialect
async def test_a_late_score_is_refused_with_503_within_the_timeout(
    gate: Gate, scripted: httpx2.AsyncClient, dialect: DialectClient
) -> None:
    answer = await ask(scripted, dialect, [("Say it.", "a")], **SOON)
    gate.open.set()
    assert dialect.read_refusal(answer) == (503, "out_of_time")


@every_dialect
async def test_the_timeout_is_the_smaller_of_the_dialects_and_the_requests(
    scripted: httpx2.AsyncClient, dialect: DialectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_calls(monkeypatch)
    await ask(scripted, dialect, [("Say it.", "a")])
    await ask(scripted, dialect, [("Say it.", "a")], **{"x-assay-timeout-ms": "9000"})
    assert [call.timeout for call in calls] == [dialect.client_timeout, 9.0]


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[AssayError]:
    """Errors that the service raises, in this order, before it scores."""
    pending: list[AssayError] = []
    scored = ScoringService.score

    async def score(service: ScoringService, call: ScoreCall) -> ScoreReply:
        if pending:
            raise pending.pop(0)
        return await scored(service, call)

    monkeypatch.setattr(ScoringService, "score", score)
    return pending


@every_dialect
async def test_an_overloaded_queue_is_refused_with_retry_after(
    scripted: httpx2.AsyncClient, dialect: DialectClient, refusals: list[AssayError]
) -> None:
    refusals.append(Overloaded("no room", retry_after=7))
    answer = await ask(scripted, dialect, [("Say it.", "a")], **SOON)
    is_held = dialect.client_timeout is not None
    assert dialect.read_refusal(answer) == (503 if is_held else 429, "overloaded")


@every_dialect
async def test_a_request_with_a_client_timeout_is_held_and_retried(
    scripted: httpx2.AsyncClient, dialect: DialectClient, refusals: list[AssayError]
) -> None:
    refusals += [Overloaded("no room", retry_after=0), ModelNotReady("loading", retry_after=0)]
    answer = await ask(scripted, dialect, [("Say it.", "a")])
    if dialect.client_timeout is None:
        assert dialect.read_refusal(answer) == (429, "overloaded")
    else:
        assert dialect.read_scores(answer.json()) == [1.0]


@every_dialect
async def test_a_model_that_failed_to_load_is_refused_at_once(
    scripted: httpx2.AsyncClient, dialect: DialectClient, refusals: list[AssayError]
) -> None:
    refusals.append(ModelFailed("broken", retry_after=0))
    answer = await ask(scripted, dialect, [("Say it.", "a")])
    assert dialect.read_refusal(answer) == (503, "model_failed")


@pytest.mark.parametrize("model", ["scripted", "scripted@1", "scripted%401", "{model}", "", "a/b"])
async def test_a_model_in_the_path_is_one_path_segment(
    scripted: httpx2.AsyncClient, model: str
) -> None:
    body = {"prompt": "p", "response": "abc", "label": None}
    answer = await scripted.post(f"/compat/slime/{model}", json=body)
    expected = {"{model}": "model_not_found", "": "not_found", "a/b": "not_found"}
    if model in expected:
        assert (answer.status_code, answer.json()["code"]) == (404, expected[model])
    else:
        assert (answer.status_code, answer.json()) == (200, 3.0)
