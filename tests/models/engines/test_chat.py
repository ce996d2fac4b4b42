"""The client of chat completions against a real server that answers in a recorded shape."""

from typing import Any

import pytest
from support.engine_cards import engine_card
from support.engine_servers import EngineServer, Received

from assay_models.engines.chat import ChatUsage, open_chat
from assay_models.engines.errors import EngineError

MESSAGES = [{"role": "user", "content": "Is 4 the answer to 2+2? yes or no."}]
LOGPROBS = {
    "content": [
        {
            "token": "yes",
            "logprob": -0.25,
            "bytes": [121, 101, 115],
            "top_logprobs": [
                {"token": "yes", "logprob": -0.25, "bytes": [121, 101, 115]},
                {"token": "no", "logprob": -1.625, "bytes": [110, 111]},
            ],
        }
    ]
}
CHOICE = {
    "index": 0,
    "message": {"role": "assistant", "content": "yes", "refusal": None, "reasoning": "2+2=4"},
    "logprobs": LOGPROBS,
    "finish_reason": "stop",
    "stop_reason": None,
}
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_796_011_641,
    "model": "judge",
    "choices": [CHOICE],
    "usage": {
        "prompt_tokens": 20,
        "total_tokens": 21,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 16},
    },
    "system_fingerprint": "vllm-0.32.0-d003e360",
}


def answering(reply: Any) -> EngineServer:
    def handler(server: EngineServer, request: Received) -> tuple[int, Any]:
        assert request.path == "/v1/chat/completions"
        return 200, reply

    return EngineServer(handler)


async def complete(reply: Any, **options: Any) -> tuple[Any, EngineServer]:
    async with answering(reply).listening() as server:
        client = open_chat(engine_card("vllm", server.url))
        try:
            return await client.complete(MESSAGES, max_tokens=1, **options), server
        finally:
            await client.close()


async def test_complete_returns_the_text_and_all_that_came_with_it() -> None:
    completion, _ = await complete(REPLY, top_logprobs=2)
    assert (completion.text, completion.finish_reason) == ("yes", "stop")
    assert completion.reasoning == "2+2=4"
    (token,) = completion.logprobs
    assert (token.token, token.logprob) == ("yes", -0.25)
    assert token.top == {"yes": -0.25, "no": -1.625}
    assert completion.usage == ChatUsage(20, 16, 1)
    assert completion.system_fingerprint == "vllm-0.32.0-d003e360"
    assert completion.model == "judge"


async def test_complete_sends_the_fields_of_the_protocol() -> None:
    extra = {"response_format": {"type": "json_object"}}
    _, server = await complete(REPLY, seed=3, top_logprobs=2, extra=extra)
    assert server.posts[0].body == {
        "model": "rm",
        "messages": MESSAGES,
        "max_tokens": 1,
        "temperature": 0.0,
        "stream": False,
        "seed": 3,
        "logprobs": True,
        "top_logprobs": 2,
        **extra,
    }


async def test_complete_of_a_text_cut_by_its_limit_says_so() -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "Let me"}
    cut = {**REPLY, "choices": [{**CHOICE, "finish_reason": "length", "message": message}]}
    completion, _ = await complete(cut)
    assert (completion.text, completion.finish_reason) == ("", "length")
    assert completion.reasoning == "Let me"


async def test_complete_without_optional_fields_leaves_them_empty() -> None:
    choice = {"index": 0, "message": {"content": "no"}, "finish_reason": "stop"}
    completion, _ = await complete({"choices": [choice]})
    assert (completion.logprobs, completion.usage) == ((), ChatUsage())
    assert (completion.model, completion.system_fingerprint) == ("", "")


def with_token(**fields: Any) -> dict[str, Any]:
    token = {**LOGPROBS["content"][0], **fields}
    return {**REPLY, "choices": [{**CHOICE, "logprobs": {"content": [token]}}]}


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"choices": []},
        {"choices": [CHOICE, CHOICE]},
        {"choices": [None]},
        {"choices": [{**CHOICE, "message": None}]},
        {"choices": [{**CHOICE, "message": {"content": 4}}]},
        {"choices": [{**CHOICE, "finish_reason": None}]},
        {"choices": [{**CHOICE, "logprobs": {"content": "yes"}}]},
        with_token(logprob=None),
        with_token(logprob="-0.25"),
        with_token(logprob=True),
        with_token(logprob=0.5),
        with_token(token=None),
        with_token(top_logprobs=[{"token": "no"}]),
        with_token(top_logprobs=[None]),
    ],
)
async def test_complete_with_a_reply_that_cannot_be_trusted_raises(reply: Any) -> None:
    with pytest.raises(EngineError) as raised:
        await complete(reply)
    assert raised.value.code == "engine_bad_reply"


async def test_complete_that_is_refused_is_sent_once_and_quotes_nothing() -> None:
    server = answering(REPLY)
    server.status = 400
    async with server.listening():
        client = open_chat(engine_card("vllm", server.url))
        with pytest.raises(EngineError) as raised:
            await client.complete(MESSAGES, max_tokens=1)
        assert raised.value.code == "engine_refused"
        assert "quotes" not in raised.value.detail
        assert len(server.posts) == 1
        await client.close()
