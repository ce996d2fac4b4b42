"""Best of n with an endpoint of chat completions: a real HTTP server with that API."""

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
    BestOfNSample,
    ChatModel,
    Client,
    ProtocolError,
    RateLimitError,
    UnprocessableEntityError,
    best_of_n_from_chat,
    best_of_n_from_chat_async,
)

PATH = "/v1/chat/completions"


class Writer:
    """A chat endpoint that answers with the next texts of a list.

    Attributes:
        texts: the next completions; None for one without a text.
        max_n: completions in one reply, at most.
        refusal: the status with which it refuses `n`; None if it takes `n`.
    """

    def __init__(self, server: Any, canned: Any) -> None:
        self.texts: list[str | None] = [f"{'x' * (1 + 5 * k % 8)}" for k in range(64)]
        self.max_n = 64
        self.refusal: int | None = None
        self._server, self._say = server, canned
        server.always = self.answer

    @property
    def url(self) -> str:
        return f"{self._server.url}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [received.body for received in self._server.received]

    def answer(self, received: Any) -> Any:
        assert (received.method, received.path) == ("POST", PATH)
        count = received.body.get("n", 1)
        if count > 1 and self.refusal is not None:
            error = {"message": "n must be 1", "type": "invalid_request_error", "code": None}
            return self._say.json({"error": error}, self.refusal)
        texts = [self.texts.pop(0) for _ in range(min(count, self.max_n))]
        choices = [
            {
                "index": place,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop" if text is not None else "tool_calls",
            }
            for place, text in enumerate(texts)
        ]
        return self._say.json({"id": "chatcmpl-1", "object": "chat.completion", "choices": choices})


@pytest.fixture
def writer(start_server: Any, canned: Any) -> Writer:
    return Writer(start_server(), canned)


@pytest.fixture
def lengths(server: Any, canned: Any) -> Any:
    """Assay with the length as reward, and confident of a best score from `confident_from` on."""

    def answer(received: Any) -> Any:
        values = [{"value": float(len(text))} for text in received.body["candidates"]]
        reply = canned.best_reply({"candidates": values})
        is_confident = reply["ranking"][0]["score"] >= server.confident_from
        reply["ranking"][0]["confidence"] = 0.9 if is_confident else 0.5
        if received.body.get("min_confidence") and not is_confident:
            reply |= {"best": None, "abstained": True}
        return canned.json(reply)

    server.confident_from = 0
    server.always = answer
    return server


@pytest.fixture(params=["sync", "async"])
def sample(request: pytest.FixtureRequest) -> Callable[..., BestOfNSample]:
    """A function that samples with clients of either kind, and closes them."""

    def sample_sync(
        url: str, chat_url: str, chat: Any, prompt: Any, **fields: Any
    ) -> BestOfNSample:
        with Client(url) as client, ChatModel(chat_url, "policy", **chat) as writer:
            return best_of_n_from_chat(client, "code", writer, prompt, **fields)

    async def sample_async(
        url: str, chat_url: str, chat: Any, prompt: Any, **fields: Any
    ) -> BestOfNSample:
        async with AsyncClient(url) as client, AsyncChatModel(chat_url, "policy", **chat) as writer:
            return await best_of_n_from_chat_async(client, "code", writer, prompt, **fields)

    if request.param == "sync":
        return sample_sync
    return lambda *args, **fields: asyncio.run(sample_async(*args, **fields))


def test_the_best_is_returned_with_all_scores(sample: Any, lengths: Any, writer: Writer) -> None:
    sampling = {"temperature": 0.8, "max_tokens": 64}
    sampled = sample(lengths.url, writer.url, sampling, "Sort a list.", n=8)
    assert writer.bodies == [
        {
            "model": "policy",
            "messages": [{"role": "user", "content": "Sort a list."}],
            "n": 8,
            **sampling,
        }
    ]
    assert lengths.received[0].body["prompt"] == "Sort a list."
    assert sorted(sampled.scores) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert sampled.best == "x" * 8
    assert [len(candidate.text) for candidate in sampled.candidates] == sampled.scores
    assert sampled.candidates[sampled.ranked.best].finish_reason == "stop"
    assert sampled.unranked == ()


def test_a_conversation_is_sent_unchanged(sample: Any, lengths: Any, writer: Writer) -> None:
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "q"}]
    sample(lengths.url, writer.url, {}, chat, n=2)
    assert writer.bodies[0]["messages"] == lengths.received[0].body["prompt"] == chat


def test_shared_replaces_the_fields_of_the_reward_model(
    sample: Any, lengths: Any, writer: Writer
) -> None:
    sample(lengths.url, writer.url, {}, "q", n=2, shared={"evidence": "e"})
    assert {"evidence", "candidates", "model"} == set(lengths.received[0].body)


@pytest.mark.parametrize("max_n", [1, 3])
def test_missing_completions_are_requested_one_by_one(
    max_n: int, sample: Any, lengths: Any, writer: Writer
) -> None:
    writer.max_n = max_n
    sampled = sample(lengths.url, writer.url, {}, "q", n=8)
    assert len(sampled.candidates) == 8
    assert [body.get("n", 1) for body in writer.bodies] == [8] + [1] * (8 - max_n)


@pytest.mark.parametrize("status", [400, 422, 501])
def test_an_endpoint_that_refuses_n_gets_single_requests(
    status: int, sample: Any, lengths: Any, writer: Writer
) -> None:
    writer.refusal, lengths.confident_from = status, 99
    sampled = sample(lengths.url, writer.url, {}, "q", n=6, min_confidence=0.8, batch_size=3)
    assert len(sampled.candidates) == 6
    assert [body.get("n", 1) for body in writer.bodies] == [3] + [1] * 6


def test_the_seed_is_counted_up(sample: Any, lengths: Any, writer: Writer) -> None:
    writer.max_n = 1
    sample(lengths.url, writer.url, {"seed": 10}, "q", n=4)
    assert sorted(body["seed"] for body in writer.bodies) == [10, 11, 12, 13]


def test_sampling_stops_as_soon_as_the_server_is_confident(
    sample: Any, lengths: Any, writer: Writer
) -> None:
    lengths.confident_from = 7
    writer.texts = ["xx", "x", "x" * 3, "x" * 7, *writer.texts]
    sampled = sample(lengths.url, writer.url, {}, "q", n=16, min_confidence=0.8, batch_size=2)
    assert (sampled.best, len(sampled.candidates)) == ("x" * 7, 4)
    assert [body["n"] for body in writer.bodies] == [2, 2]
    assert [len(received.body["candidates"]) for received in lengths.received] == [2, 4]


def test_without_confidence_there_is_no_best(sample: Any, lengths: Any, writer: Writer) -> None:
    lengths.confident_from = 99
    sampled = sample(lengths.url, writer.url, {}, "q", n=5, min_confidence=0.8, batch_size=2)
    assert (sampled.best, len(sampled.candidates)) == (None, 5)
    assert sampled.ranked.abstained
    assert len(sampled.candidates[sampled.ranked.ranking[0].index].text or "") == max(
        sampled.scores
    )


def test_a_completion_without_text_is_not_ranked(sample: Any, lengths: Any, writer: Writer) -> None:
    writer.texts = ["x", None, "xx"]
    sampled = sample(lengths.url, writer.url, {}, "q", n=3)
    assert (sampled.best, len(sampled.candidates)) == ("xx", 2)
    assert [completion.finish_reason for completion in sampled.unranked] == ["tool_calls"]
    writer.texts = [None, None]
    with pytest.raises(ProtocolError, match="no completion holds a text"):
        sample(lengths.url, writer.url, {}, "q", n=2)


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"text": "old"}]}])
def test_a_malformed_reply_raises_a_protocol_error(
    body: Any, sample: Any, lengths: Any, start_server: Any, canned: Any
) -> None:
    other = start_server()
    other.always = canned.json(body)
    with pytest.raises(ProtocolError, match="choices"):
        sample(lengths.url, f"{other.url}/v1", {}, "q", n=2)
    assert lengths.received == []


def test_a_refusal_of_the_request_raises_a_status_error(
    sample: Any, lengths: Any, start_server: Any, canned: Any
) -> None:
    other = start_server()
    error = {"error": {"message": "temperature is too high", "code": "bad_temperature"}}
    other.always = canned.json(error, 422)
    with pytest.raises(
        UnprocessableEntityError, match="422 bad_temperature: temperature is too high"
    ):
        sample(lengths.url, f"{other.url}/v1", {"temperature": 9}, "q", n=2)
    other.always = canned.json(error, 418)
    with pytest.raises(APIStatusError, match="418"):
        sample(lengths.url, f"{other.url}/v1", {}, "q", n=2)
    other.always = canned.json(error, 429)
    with pytest.raises(RateLimitError):
        sample(lengths.url, f"{other.url}/v1", {"max_retries": 0}, "q", n=2)


def test_an_unreachable_endpoint_raises_a_connection_error(
    sample: Any, lengths: Any, refused_url: str
) -> None:
    with pytest.raises(APIConnectionError):
        sample(lengths.url, refused_url, {"max_retries": 0}, "q")


def test_assays_key_is_not_sent_to_the_endpoint(
    sample: Any, lengths: Any, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_API_KEY", "of-assay")
    sample(lengths.url, writer.url, {}, "q", n=2)
    assert "authorization" not in writer._server.received[0].headers
    assert lengths.received[0].headers["authorization"] == "Bearer of-assay"
    sample(lengths.url, writer.url, {"api_key": "of-writer"}, "q", n=2)
    assert writer._server.received[1].headers["authorization"] == "Bearer of-writer"


def test_invalid_arguments_are_refused(sample: Any, lengths: Any, writer: Writer) -> None:
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
        sampled = best_of_n_from_chat(client, "reference", chat, "one two three", n=3)
    assert sampled.best == "one two three"
    assert sampled.scores == pytest.approx([math.log(2 / 3), math.log(4), math.log(1 / 4)])


@pytest.mark.parametrize("prompt", [None, {"role": "user", "content": "q"}, ["q"], 3])
def test_a_prompt_is_a_text_or_messages(prompt: Any) -> None:
    with (
        ChatModel("http://127.0.0.1:8001/v1", "policy") as chat,
        pytest.raises(ValueError, match="a text, or a list of messages"),
    ):
        chat.draw(prompt, 1)


@pytest.mark.parametrize("kind", [ChatModel, AsyncChatModel])
def test_the_address_of_the_route_itself_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="ends in /chat/completions, which the client adds"):
        kind("http://127.0.0.1:8001/v1/chat/completions", "policy")
