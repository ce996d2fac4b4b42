"""The requests and replies of chat completions, as values. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay_client._transport.fields import Fields, read_json
from assay_client._transport.requests import Reply, Request, encode
from assay_client.errors import APIStatusError

# How endpoints say that they do not take `n`, or anything else in a request.
_REFUSALS = frozenset({400, 422, 501})


@dataclass(frozen=True)
class Completion:
    """One answer: its text, None where it holds none, and why it ended (`stop`, `length`, …)."""

    text: str | None
    finish_reason: str | None


class Endpoint:
    """What is known of an endpoint: the model, how to sample, and whether it takes `n`."""

    def __init__(self, model: str, sampling: Mapping[str, Any]) -> None:
        if "n" in sampling or "stream" in sampling:
            raise ValueError("n and stream are not for you to say: say how many you draw")
        self._model = model
        self._sampling = dict(sampling)
        self.takes_n = True

    def request(self, prompt: str | Sequence[Mapping[str, Any]], count: int, start: int) -> Request:
        """POST /chat/completions.

        Raises:
            ValueError: it cannot be written as JSON.
        """
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        body: dict[str, Any] = {**self._sampling, "model": self._model, "messages": turns}
        if count > 1:
            body["n"] = count
        if isinstance(body.get("seed"), int):
            body["seed"] += start
        return Request("POST", "/chat/completions", encode(body, "messages"))

    def read(self, reply: Reply, count: int) -> list[Completion]:
        """The completions of a reply; an endpoint that gives fewer than it was asked for is not
        asked for several again.

        Raises:
            ProtocolError: it is no reply to such a request, or holds no completion.
        """
        fields = Fields(read_json(reply.body), "reply")
        found = [_completion(choice) for choice in fields.objects("choices")]
        if not found:
            fields.fail("has no choices")
        if len(found) < count:
            self.takes_n = False
        return found

    def learn(self, error: APIStatusError) -> None:
        """What a refusal of several says: that they must be asked for one by one.

        Raises:
            APIStatusError: it is no such refusal.
        """
        if error.status not in _REFUSALS:
            raise error
        self.takes_n = False


def _completion(choice: Fields) -> Completion:
    message = choice.object("message")
    text = message.text("content") if "content" in message else None
    reason = choice.text("finish_reason") if "finish_reason" in choice else None
    return Completion(text, reason)
