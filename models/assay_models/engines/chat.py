"""ChatClient: OpenAI's chat completions, as vLLM, SGLang, llama.cpp and hosted APIs serve them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from assay_models.card import CardError, ModelCard
from assay_models.engines.client import open_transport
from assay_models.engines.errors import bad_reply
from assay_models.engines.http import Reply
from assay_models.engines.listener import SILENT, EngineListener
from assay_models.engines.replies import JsonObject, objects, parse_object, text_at, whole_at
from assay_models.engines.transport import ALONE, Call, Transport

Message = Mapping[str, str]
CHARACTERS_PER_TOKEN = 4
MAX_LOGPROB = 1e-3
"""A log-probability is not above 0, but for rounding."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's text, its natural log-probability, and those of other tokens in its place."""

    token: str
    logprob: float
    top: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatUsage:
    """Tokens of a prompt, how many of them a cache held, and tokens of the completion."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion.

    `text` is empty where the model said nothing outside its thoughts, which are in `reasoning`.
    Check `finish_reason`: it is `length` where `max_tokens` cut the text. `logprobs` has an entry
    for each token if they were asked for. `system_fingerprint` names the engine's build.
    """

    text: str
    finish_reason: str
    reasoning: str = ""
    refusal: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    usage: ChatUsage = ChatUsage()
    system_fingerprint: str = ""
    model: str = ""


class ChatClient:
    """Client of `POST /v1/chat/completions`, with the retries and breakers of engines.

    Args:
        transport: the sender of calls.
        model: the name of the model.
    """

    def __init__(self, transport: Transport, model: str) -> None:
        self._transport = transport
        self._model = model

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        top_logprobs: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Return the completion of a chat.

        Args:
            messages: the messages, with `role` and `content`.
            max_tokens: of the completion.
            temperature: 0 is greedy.
            seed: of the sampling.
            top_logprobs: other tokens to return for each token; None for no log-probabilities.
            extra: more fields of the body, such as `response_format` or `logprob_token_ids`.

        Raises:
            EngineError: there is no completion.
        """
        body: dict[str, Any] = {
            **(extra or {}),
            "model": self._model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stream": False,
        }
        if seed is not None:
            body["seed"] = seed
        if top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": top_logprobs}
        length = sum(len(message.get("content", "")) for message in messages)
        tokens = max_tokens + length // CHARACTERS_PER_TOKEN
        call = Call("/v1/chat/completions", orjson.dumps(body), 1, tokens, headers=ALONE)
        return await self._transport.call(call, _read)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()


def open_chat(
    card: ModelCard,
    *,
    clock: Callable[[], float] = time.monotonic,
    listener: EngineListener = SILENT,
) -> ChatClient:
    """Return the chat client of a card's section `[engine]`. No call is made yet.

    Raises:
        CardError: the card has no such section, or the file with the key cannot be used.
    """
    if card.engine is None:
        raise CardError(f"{card.id}: the card has no section [engine]")
    transport = open_transport(card.id, card.engine, clock=clock, listener=listener)
    return ChatClient(transport, card.engine.model)


def _read(reply: Reply) -> Completion:
    """Return the only completion of a reply.

    Raises:
        EngineError: it has none, or several, or one without a reason for its end.
    """
    value = parse_object(reply)
    (choice,) = objects(value.get("choices"), 1)
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else 0
    finish_reason = text_at(choice, "finish_reason")
    if not isinstance(content, str | None) or finish_reason is None:
        raise bad_reply("its choice has no message, or no reason for its end")
    return Completion(
        text=content or "",
        finish_reason=finish_reason,
        reasoning=text_at(message, "reasoning") or text_at(message, "reasoning_content") or "",
        refusal=text_at(message, "refusal") or "",
        logprobs=_logprobs(choice.get("logprobs")),
        usage=_usage(value),
        system_fingerprint=text_at(value, "system_fingerprint") or "",
        model=text_at(value, "model") or "",
    )


def _logprobs(value: object) -> tuple[TokenLogprob, ...]:
    tokens = value.get("content") if isinstance(value, dict) else None
    if tokens is None:
        return ()
    if not isinstance(tokens, list):
        raise bad_reply("its log-probabilities are no list")
    return tuple(_logprob(token) for token in objects(tokens, len(tokens)))


def _logprob(entry: JsonObject) -> TokenLogprob:
    top = entry.get("top_logprobs") or []
    others = objects(top, len(top) if isinstance(top, list) else 0)
    return TokenLogprob(*_token(entry), top=dict(map(_token, others)))


def _token(entry: JsonObject) -> tuple[str, float]:
    token, logprob = entry.get("token"), entry.get("logprob")
    if not isinstance(token, str) or type(logprob) not in (float, int):
        raise bad_reply("a token has no text or no log-probability")
    assert isinstance(logprob, float | int)
    if not math.isfinite(logprob) or logprob > MAX_LOGPROB:
        raise bad_reply("a log-probability is above 0")
    return token, float(logprob)


def _usage(value: JsonObject) -> ChatUsage:
    return ChatUsage(
        whole_at(value, "usage", "prompt_tokens") or 0,
        whole_at(value, "usage", "prompt_tokens_details", "cached_tokens") or 0,
        whole_at(value, "usage", "completion_tokens") or 0,
    )
