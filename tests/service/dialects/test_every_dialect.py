"""What holds for every dialect: right numbers in the client's own shape, and no invented one."""

import json
from collections.abc import Callable, Sequence

import httpx2
import pytest
from support.dialect_clients import SPEAKERS, Speaker, Turn
from support.doubles import Gate, ScriptedModel
from support.servers import Served

from assay.errors import AssayError, ModelFailed, ModelNotReady, Overloaded
from assay.scoring.service import ScoreCall, ScoringService
from assay.settings import Settings
from assay.types import ScoreReply
from assay_models.base import Input, Raw

JSON = {"content-type": "application/json"}
SOON = {"x-assay-timeout-ms": "20"}

every = pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.name)
every_list = pytest.mark.parametrize(
    "speaker", [one for one in SPEAKERS if one.lists], ids=lambda speaker: speaker.name
)


async def ask(
    client: httpx2.AsyncClient,
    speaker: Speaker,
    turns: Sequence[Turn],
    model: str = "scripted",
    **headers: str,
) -> httpx2.Response:
    content = json.dumps(speaker.body(turns)).encode().replace(b"{model}", model.encode())
    route = speaker.route.format(model=model)
    reply = await client.post(route, content=content, headers=JSON | headers)
    return await speaker.fetch(client, reply)


@every
@pytest.mark.parametrize("response", ["aaa", "naïve, 日本語, 🦜", 'line\nand "quotes"'])
async def test_a_response_gets_its_score(
    scripted: httpx2.AsyncClient, speaker: Speaker, response: str
) -> None:
    answer = await ask(scripted, speaker, [("Say it.", response)])
    assert answer.status_code == 200, answer.text
    expected = speaker.number(len(response))
    assert speaker.scores(answer.json()) == pytest.approx([expected], abs=1e-12)


@every_list
async def test_scores_come_in_the_order_of_the_request(
    scripted: httpx2.AsyncClient, speaker: Speaker
) -> None:
    answer = await ask(scripted, speaker, [("Say it.", "a" * size) for size in (3, 1, 2)])
    assert answer.status_code == 200, answer.text
    expected = [speaker.number(size) for size in (3, 1, 2)]
    assert speaker.scores(answer.json()) == pytest.approx(expected, abs=1e-12)


@every_list
async def test_an_empty_list(scripted: httpx2.AsyncClient, speaker: Speaker) -> None:
    answer = await ask(scripted, speaker, [])
    if speaker.empty is None:
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    elif isinstance(speaker.empty, dict):
        assert (answer.status_code, answer.json()) == (200, speaker.empty)
    else:
        assert (answer.status_code, speaker.scores(answer.json())) == (200, speaker.empty)


@every
@pytest.mark.parametrize("kind", ["application/json", "application/vnd.another+json"])
async def test_the_clients_own_request_is_answered_by_both_ways_to_an_endpoint(
    scripted: httpx2.AsyncClient, speaker: Speaker, kind: str
) -> None:
    content = speaker.sent.replace(b"{model}", b"scripted")
    route = speaker.route.format(model="scripted")
    reply = await scripted.post(route, content=content, headers={"content-type": kind})
    answer = await speaker.fetch(scripted, reply)
    assert answer.status_code == 200, answer.text
    assert speaker.got(answer.json()), answer.text


@every
async def test_an_unknown_model_is_not_found(
    scripted: httpx2.AsyncClient, speaker: Speaker
) -> None:
    answer = await ask(scripted, speaker, [("Say it.", "a")], model="other")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


@every
async def test_an_item_that_is_too_long_has_no_score(
    served: Served, reference_settings: Settings, speaker: Speaker
) -> None:
    async with served(reference_settings) as client:
        answer = await ask(client, speaker, [("Say it.", "word " * 5000)], model="reference")
        assert speaker.failed(answer).startswith("input_too_long: ")


every_cut = pytest.mark.parametrize(
    "speaker", [one for one in SPEAKERS if one.cuts], ids=lambda speaker: speaker.name
)


@every_cut
@pytest.mark.parametrize("side", ["left", "right", "middle"])
async def test_the_url_may_ask_for_a_cut(
    served: Served, reference_settings: Settings, speaker: Speaker, side: str
) -> None:
    prompt, response = "one two", "one " + "word " * 5000 + "two three"
    item = {"prompt": prompt, "response": response}
    native = {"model": "reference", "items": [item], "options": {"truncation": side}}
    async with served(reference_settings) as client:
        route = f"{speaker.route.format(model='reference')}?truncation={side}"
        reply = await client.post(route, json=speaker.body([(prompt, response)]))
        answer = await speaker.fetch(client, reply)
        (expected,) = (await client.post("/v1/score", json=native)).json()["results"]
        assert expected["flags"] == ["truncated"]
        assert speaker.scores(answer.json()) == [expected["score"]]


@every_cut
async def test_a_cut_that_is_none_is_refused(
    scripted: httpx2.AsyncClient, speaker: Speaker
) -> None:
    route = speaker.route.format(model="scripted")
    answer = await scripted.post(f"{route}?truncation=top", json=speaker.body([("a", "b")]))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["hint"] == "one of error, left, right, middle"


@every
@pytest.mark.parametrize(("text", "code"), [("nan", "non_finite"), ("poison", "inference_failed")])
async def test_a_number_that_is_none_is_not_sent(
    scripted: httpx2.AsyncClient, speaker: Speaker, text: str, code: str
) -> None:
    turns = [("Say it.", text), *([("Say it.", "fine")] if speaker.lists else [])]
    assert speaker.failed(await ask(scripted, speaker, turns)).startswith(code)


@every
async def test_a_model_that_is_loading(loading: httpx2.AsyncClient, speaker: Speaker) -> None:
    answer = await ask(loading, speaker, [("Say it.", "a")], **SOON)
    assert speaker.refusal(answer) == (503, "model_not_ready")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Holds the device until it is opened."""
    held = Gate()

    def predict(_: ScriptedModel, inputs: Sequence[Input]) -> Sequence[Raw]:
        return held(inputs)

    monkeypatch.setattr(ScriptedModel, "predict", predict)
    return held


@every
async def test_what_takes_too_long_is_said_while_the_client_listens(
    gate: Gate, scripted: httpx2.AsyncClient, speaker: Speaker
) -> None:
    answer = await ask(scripted, speaker, [("Say it.", "a")], **SOON)
    gate.open.set()
    assert speaker.refusal(answer) == (503, "out_of_time")


@every
async def test_the_deadline_comes_before_the_client_hangs_up(
    scripted: httpx2.AsyncClient, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[ScoreCall] = []
    scored: Callable = ScoringService.score

    async def score(service: ScoringService, call: ScoreCall) -> ScoreReply:
        calls.append(call)
        reply: ScoreReply = await scored(service, call)
        return reply

    monkeypatch.setattr(ScoringService, "score", score)
    await ask(scripted, speaker, [("Say it.", "a")])
    await ask(scripted, speaker, [("Say it.", "a")], **{"x-assay-timeout-ms": "9000"})
    assert [call.timeout for call in calls] == [speaker.patience, 9.0]


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[AssayError]:
    """Raised by the service in this order, before it scores."""
    pending: list[AssayError] = []
    scored: Callable = ScoringService.score

    async def score(service: ScoringService, call: ScoreCall) -> ScoreReply:
        if pending:
            raise pending.pop(0)
        reply: ScoreReply = await scored(service, call)
        return reply

    monkeypatch.setattr(ScoringService, "score", score)
    return pending


@every
async def test_an_overloaded_queue_says_when_to_come_back(
    scripted: httpx2.AsyncClient, speaker: Speaker, refusals: list[AssayError]
) -> None:
    refusals.append(Overloaded("no room", retry_after=7))
    answer = await ask(scripted, speaker, [("Say it.", "a")], **SOON)
    held = speaker.patience is not None
    assert speaker.refusal(answer) == (503 if held else 429, "overloaded")


@every
async def test_who_waits_long_is_held_and_who_does_not_is_told(
    scripted: httpx2.AsyncClient, speaker: Speaker, refusals: list[AssayError]
) -> None:
    refusals += [Overloaded("no room", retry_after=0), ModelNotReady("loading", retry_after=0)]
    answer = await ask(scripted, speaker, [("Say it.", "a")])
    if speaker.patience is None:
        assert speaker.refusal(answer) == (429, "overloaded")
    else:
        assert speaker.scores(answer.json()) == [1.0]


@every
async def test_a_model_that_failed_to_load_is_not_waited_for(
    scripted: httpx2.AsyncClient, speaker: Speaker, refusals: list[AssayError]
) -> None:
    refusals.append(ModelFailed("broken", retry_after=0))
    answer = await ask(scripted, speaker, [("Say it.", "a")])
    assert speaker.refusal(answer) == (503, "model_failed")


@pytest.mark.parametrize("model", ["scripted", "scripted@1", "scripted%401", "{model}", "", "a/b"])
async def test_a_model_in_the_path_is_any_text_between_two_slashes(
    scripted: httpx2.AsyncClient, model: str
) -> None:
    body = {"prompt": "p", "response": "abc", "label": None}
    answer = await scripted.post(f"/compat/slime/{model}", json=body)
    expected = {"{model}": "model_not_found", "": "not_found", "a/b": "not_found"}
    if model in expected:
        assert (answer.status_code, answer.json()["code"]) == (404, expected[model])
    else:
        assert (answer.status_code, answer.json()) == (200, 3.0)
