"""Best of n over an endpoint of chat completions, a real HTTP server that speaks that API."""

import asyncio
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.servers import listening

from assay.settings import Settings
from assay_client import (
    APIConnectionError,
    APIStatusError,
    AsyncChatModel,
    AsyncClient,
    ChatModel,
    Client,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    Sampled,
    sample_best,
    sample_best_async,
)

PATH = "/v1/chat/completions"


class Writer:
    """What an endpoint answers: the next texts of a list, `n` of them where it takes that."""

    def __init__(self, server: Any, say: Any) -> None:
        self.texts: list[str | None] = [f"{'x' * (1 + 5 * k % 8)}" for k in range(64)]
        self.most = 64
        self.refusal: int | None = None
        self._server, self._say = server, say
        server.always = self.answer

    @property
    def url(self) -> str:
        return f"{self._server.url}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [seen.body for seen in self._server.seen]

    def answer(self, seen: Any) -> Any:
        assert (seen.method, seen.path) == ("POST", PATH)
        wanted = seen.body.get("n", 1)
        if wanted > 1 and self.refusal is not None:
            error = {"message": "n must be 1", "type": "invalid_request_error", "code": None}
            return self._say.json({"error": error}, self.refusal)
        given = [self.texts.pop(0) for _ in range(min(wanted, self.most))]
        choices = [
            {
                "index": place,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop" if text is not None else "tool_calls",
            }
            for place, text in enumerate(given)
        ]
        return self._say.json({"id": "chatcmpl-1", "object": "chat.completion", "choices": choices})


@pytest.fixture
def writer(start: Any, say: Any) -> Writer:
    return Writer(start(), say)


@pytest.fixture
def lengths(server: Any, say: Any) -> Any:
    """Assay, whose reward is the length, and which is sure of a best of so much."""

    def answer(seen: Any) -> Any:
        values = [{"value": float(len(text))} for text in seen.body["candidates"]]
        reply = say.best_reply({"candidates": values})
        is_sure = reply["ranking"][0]["score"] >= server.sure_of
        reply["ranking"][0]["confidence"] = 0.9 if is_sure else 0.5
        if seen.body.get("min_confidence") and not is_sure:
            reply |= {"best": None, "abstained": True}
        return say.json(reply)

    server.sure_of = 0
    server.always = answer
    return server


@pytest.fixture(params=["sync", "async"])
def sample(request: pytest.FixtureRequest) -> Callable[..., Sampled]:
    """Samples with clients of either kind, and closes them."""

    def waiting(url: str, chat_url: str, chat: Any, prompt: Any, **fields: Any) -> Sampled:
        with Client(url) as client, ChatModel(chat_url, "policy", **chat) as writer:
            return sample_best(client, "code", writer, prompt, **fields)

    async def awaited(url: str, chat_url: str, chat: Any, prompt: Any, **fields: Any) -> Sampled:
        async with AsyncClient(url) as client, AsyncChatModel(chat_url, "policy", **chat) as writer:
            return await sample_best_async(client, "code", writer, prompt, **fields)

    if request.param == "sync":
        return waiting
    return lambda *args, **fields: asyncio.run(awaited(*args, **fields))


def test_it_returns_the_best_with_all_scores(sample: Any, lengths: Any, writer: Writer) -> None:
    sampling = {"temperature": 0.8, "max_tokens": 64}
    found = sample(lengths.url, writer.url, sampling, "Sort a list.", n=8)
    assert writer.bodies == [
        {
            "model": "policy",
            "messages": [{"role": "user", "content": "Sort a list."}],
            "n": 8,
            **sampling,
        }
    ]
    assert lengths.seen[0].body["prompt"] == "Sort a list."
    assert sorted(found.scores) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert found.best == "x" * 8
    assert [len(one.text) for one in found.candidates] == found.scores
    assert found.candidates[found.ranked.best].finish_reason == "stop"
    assert found.unranked == ()


def test_a_conversation_is_sent_as_it_is(sample: Any, lengths: Any, writer: Writer) -> None:
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "q"}]
    sample(lengths.url, writer.url, {}, chat, n=2)
    assert writer.bodies[0]["messages"] == lengths.seen[0].body["prompt"] == chat


def test_the_reward_model_may_get_something_else(sample: Any, lengths: Any, writer: Writer) -> None:
    sample(lengths.url, writer.url, {}, "q", n=2, shared={"evidence": "e"})
    assert {"evidence", "candidates", "model"} == set(lengths.seen[0].body)


@pytest.mark.parametrize("most", [1, 3])
def test_an_endpoint_that_gives_fewer_is_asked_again(
    most: int, sample: Any, lengths: Any, writer: Writer
) -> None:
    writer.most = most
    found = sample(lengths.url, writer.url, {}, "q", n=8)
    assert len(found.candidates) == 8
    assert [body.get("n", 1) for body in writer.bodies] == [8] + [1] * (8 - most)


@pytest.mark.parametrize("status", [400, 422, 501])
def test_an_endpoint_that_refuses_n_is_asked_one_by_one(
    status: int, sample: Any, lengths: Any, writer: Writer
) -> None:
    writer.refusal, lengths.sure_of = status, 99
    found = sample(lengths.url, writer.url, {}, "q", n=6, min_confidence=0.8, at_once=3)
    assert len(found.candidates) == 6
    assert [body.get("n", 1) for body in writer.bodies] == [3] + [1] * 6


def test_no_candidate_is_drawn_twice_by_one_seed(sample: Any, lengths: Any, writer: Writer) -> None:
    writer.most = 1
    sample(lengths.url, writer.url, {"seed": 10}, "q", n=4)
    assert sorted(body["seed"] for body in writer.bodies) == [10, 11, 12, 13]


def test_it_stops_as_soon_as_the_server_is_sure(sample: Any, lengths: Any, writer: Writer) -> None:
    lengths.sure_of = 7
    writer.texts = ["xx", "x", "x" * 3, "x" * 7, *writer.texts]
    found = sample(lengths.url, writer.url, {}, "q", n=16, min_confidence=0.8, at_once=2)
    assert (found.best, len(found.candidates)) == ("x" * 7, 4)
    assert [body["n"] for body in writer.bodies] == [2, 2]
    assert [len(seen.body["candidates"]) for seen in lengths.seen] == [2, 4]


def test_without_being_sure_there_is_no_best(sample: Any, lengths: Any, writer: Writer) -> None:
    lengths.sure_of = 99
    found = sample(lengths.url, writer.url, {}, "q", n=5, min_confidence=0.8, at_once=2)
    assert (found.best, len(found.candidates)) == (None, 5)
    assert found.ranked.abstained
    assert len(found.candidates[found.ranked.ranking[0].index].text or "") == max(found.scores)


def test_what_holds_no_text_is_not_ranked(sample: Any, lengths: Any, writer: Writer) -> None:
    writer.texts = ["x", None, "xx"]
    found = sample(lengths.url, writer.url, {}, "q", n=3)
    assert (found.best, len(found.candidates)) == ("xx", 2)
    assert [one.finish_reason for one in found.unranked] == ["tool_calls"]
    writer.texts = [None, None]
    with pytest.raises(ProtocolError, match="no completion holds a text"):
        sample(lengths.url, writer.url, {}, "q", n=2)


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"text": "old"}]}])
def test_what_is_no_such_reply_is_refused(
    body: Any, sample: Any, lengths: Any, start: Any, say: Any
) -> None:
    other = start()
    other.always = say.json(body)
    with pytest.raises(ProtocolError, match="choices"):
        sample(lengths.url, f"{other.url}/v1", {}, "q", n=2)
    assert lengths.seen == []


def test_a_refusal_of_the_request_itself_is_told(
    sample: Any, lengths: Any, start: Any, say: Any
) -> None:
    other = start()
    error = {"error": {"message": "temperature is too high", "code": "bad_temperature"}}
    other.always = say.json(error, 422)
    with pytest.raises(InvalidRequestError, match="422 bad_temperature: temperature is too high"):
        sample(lengths.url, f"{other.url}/v1", {"temperature": 9}, "q", n=2)
    other.always = say.json(error, 418)
    with pytest.raises(APIStatusError, match="418"):
        sample(lengths.url, f"{other.url}/v1", {}, "q", n=2)
    other.always = say.json(error, 429)
    with pytest.raises(RateLimitError):
        sample(lengths.url, f"{other.url}/v1", {"max_retries": 0}, "q", n=2)


def test_nobody_writes(sample: Any, lengths: Any, refused_url: str) -> None:
    with pytest.raises(APIConnectionError):
        sample(lengths.url, refused_url, {"max_retries": 0}, "q")


def test_assays_key_is_not_for_the_endpoint(
    sample: Any, lengths: Any, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_API_KEY", "of-assay")
    sample(lengths.url, writer.url, {}, "q", n=2)
    assert "authorization" not in writer._server.seen[0].headers
    assert lengths.seen[0].headers["authorization"] == "Bearer of-assay"
    sample(lengths.url, writer.url, {"api_key": "of-writer"}, "q", n=2)
    assert writer._server.seen[1].headers["authorization"] == "Bearer of-writer"


def test_arguments_that_cannot_be_meant(sample: Any, lengths: Any, writer: Writer) -> None:
    with pytest.raises(ValueError, match="n must be at least 1"):
        sample(lengths.url, writer.url, {}, "q", n=0)
    with pytest.raises(ValueError, match="n and stream are not for you"):
        ChatModel(writer.url, "policy", n=3)
    with pytest.raises(ValueError, match="cannot be written"):
        sample(lengths.url, writer.url, {"temperature": math.nan}, "q", n=2)


def test_a_chat_model_can_be_pickled(writer: Writer) -> None:
    with pickle.loads(pickle.dumps(ChatModel(writer.url, "policy", seed=1))) as chat:
        assert len(chat.draw("q", 3, start=5)) == 3
    assert writer.bodies[0]["seed"] == 6


@pytest.fixture(scope="module")
def reference_url() -> Iterator[str]:
    with listening(Settings(models=("reference",))) as url:
        yield url


def test_with_assay_itself(reference_url: str, writer: Writer) -> None:
    writer.texts = ["one", "one two three", "nothing"]
    with Client(reference_url) as client, ChatModel(writer.url, "policy") as chat:
        found = sample_best(client, "reference", chat, "one two three", n=3)
    assert found.best == "one two three"
    assert found.scores == pytest.approx([math.log(2 / 3), math.log(4), math.log(1 / 4)])
