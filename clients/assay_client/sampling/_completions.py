"""Requests and replies of chat completions, as values. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay_client._transport.fields import Fields, read_json
from assay_client._transport.requests import encode
from assay_client.errors import APIStatusError
from assay_client.types import Response

PATH = "/chat/completions"

# Statuses with which endpoints refuse `n`, or any other field of a request.
_REFUSAL_STATUS_CODES = frozenset({400, 422, 501})


@dataclass(frozen=True)
class Completion:
    """A completion: its text, None if it has none, and why it ended (`stop`, `length`, …)."""

    text: str | None
    finish_reason: str | None


class ChatEndpoint:
    """The model and sampling parameters of a chat endpoint.

    Attributes:
        supports_n: whether the endpoint takes `n`, as far as is known.
    """

    def __init__(self, model: str, sampling: Mapping[str, Any]) -> None:
        if "n" in sampling or "stream" in sampling:
            raise ValueError("n and stream are not for you to say: say how many you draw")
        self._model = model
        self._sampling = dict(sampling)
        self.supports_n = True

    def request_body(
        self, prompt: str | Sequence[Mapping[str, Any]], count: int, start: int
    ) -> bytes:
        """Build the body of POST /chat/completions.

        Raises:
            ValueError: it is neither text nor messages, or cannot be written as JSON.
        """
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        is_list = isinstance(messages, Sequence)
        if not is_list or not all(isinstance(message, Mapping) for message in messages):
            raise ValueError("prompt must be a text, or a list of messages, each a dict")
        body: dict[str, Any] = {**self._sampling, "model": self._model, "messages": messages}
        if count > 1:
            body["n"] = count
        if isinstance(body.get("seed"), int):
            body["seed"] += start
        return encode(body, "messages")

    def read_completions(self, response: Response, count: int) -> list[Completion]:
        """Read the completions of a reply.

        An endpoint that returns fewer than `count` gets no request with `n` again.

        Raises:
            ProtocolError: it is no reply to such a request, or holds no completion.
        """
        fields = Fields(read_json(response.content), "reply")
        completions = [_completion(choice) for choice in fields.objects("choices")]
        if not completions:
            fields.fail("has no choices")
        if len(completions) < count:
            self.supports_n = False
        return completions

    def record_refusal(self, error: APIStatusError) -> None:
        """Record that the endpoint refuses `n`, so that completions are requested one by one.

        Raises:
            APIStatusError: it is no such refusal.
        """
        if error.status_code not in _REFUSAL_STATUS_CODES:
            raise error
        self.supports_n = False


def _completion(choice: Fields) -> Completion:
    message = choice.object("message")
    text = message.text("content") if "content" in message else None
    reason = choice.text("finish_reason") if "finish_reason" in choice else None
    return Completion(text, reason)
