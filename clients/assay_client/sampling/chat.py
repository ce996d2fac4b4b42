"""Best of n with any endpoint of OpenAI's chat completions: it generates, Assay ranks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from assay_client._transport.clock import Clock
from assay_client.async_client import AsyncClient
from assay_client.client import Client
from assay_client.errors import APIStatusError, ProtocolError
from assay_client.sampling._completions import PATH, ChatEndpoint, Completion
from assay_client.sampling.best_of_n import (
    best_of_n_until_confident,
    best_of_n_until_confident_async,
)
from assay_client.types import BestOfN

if TYPE_CHECKING:
    from assay_client._transport.http import AsyncHTTPClient, HTTPClient

Prompt = Union[str, Sequence[Mapping[str, Any]]]


class _ChatClient(Client):
    _own_paths = (PATH,)


class _AsyncChatClient(AsyncClient):
    _own_paths = (PATH,)


class ChatModel:
    """A model that answers `POST {base_url}/chat/completions`.

    Args:
        base_url: of the endpoint, up to its version: `http://127.0.0.1:8001/v1`.
        model: its name there.
        api_key: sent as `Authorization: Bearer`. There is no default: Assay's key is not sent to
            another server.
        timeout: seconds for one request in all, its retries included.
        max_retries: retries of a request.
        http_client: as for `Client`.
        clock: as for `Client`.
        **sampling: further fields of each request: `temperature`, `max_tokens`, `top_p`, `seed`, ….
            A `seed` is counted up, so that no candidate is drawn twice.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        max_retries: int = 4,
        http_client: HTTPClient | None = None,
        clock: Clock | None = None,
        **sampling: Any,
    ) -> None:
        self._endpoint = ChatEndpoint(model, sampling)
        self._client = _ChatClient(
            base_url,
            api_key=api_key or "",
            timeout=timeout,
            max_retries=max_retries,
            http_client=http_client,
            clock=clock,
        )

    def draw(self, prompt: Prompt, count: int, *, start: int = 0) -> list[Completion]:
        """Draw completions, with one request if the endpoint takes `n`, else with several.

        Args:
            prompt: a text, or messages.
            count: the number of completions.
            start: the number that was drawn before; a `seed` continues from there.

        Raises:
            AssayError: the endpoint refuses, cannot be reached, or returns none.
            ValueError: the prompt cannot be written as JSON.
        """
        completions: list[Completion] = []
        if count > 1 and self._endpoint.supports_n:
            try:
                completions = self._request(prompt, count, start)
            except APIStatusError as error:
                self._endpoint.record_refusal(error)
        while len(completions) < count:
            completions += self._request(prompt, 1, start + len(completions))
        return completions[:count]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> ChatModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, prompt: Prompt, count: int, start: int) -> list[Completion]:
        body = self._endpoint.request_body(prompt, count, start)
        response = self._client.request("POST", PATH, content=body)
        return self._endpoint.read_completions(response, count)


class AsyncChatModel:
    """An asynchronous `ChatModel`. If the endpoint does not take `n`, requests are concurrent."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        max_retries: int = 4,
        http_client: AsyncHTTPClient | None = None,
        clock: Clock | None = None,
        **sampling: Any,
    ) -> None:
        self._endpoint = ChatEndpoint(model, sampling)
        self._client = _AsyncChatClient(
            base_url,
            api_key=api_key or "",
            timeout=timeout,
            max_retries=max_retries,
            http_client=http_client,
            clock=clock,
        )

    async def draw(self, prompt: Prompt, count: int, *, start: int = 0) -> list[Completion]:
        """See `ChatModel.draw`."""
        completions: list[Completion] = []
        if count > 1 and self._endpoint.supports_n:
            try:
                completions = await self._request(prompt, count, start)
            except APIStatusError as error:
                self._endpoint.record_refusal(error)
        first = start + len(completions)
        singles = [
            asyncio.create_task(self._request(prompt, 1, first + number))
            for number in range(count - len(completions))
        ]
        try:
            for drawn in await asyncio.gather(*singles):
                completions += drawn
        finally:
            for task in singles:
                task.cancel()
        return completions[:count]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> AsyncChatModel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _request(self, prompt: Prompt, count: int, start: int) -> list[Completion]:
        body = self._endpoint.request_body(prompt, count, start)
        response = await self._client.request("POST", PATH, content=body)
        return self._endpoint.read_completions(response, count)


@dataclass(frozen=True)
class BestOfNSample:
    """Drawn completions and their ranking.

    Attributes:
        best: the text of the best; None if the server abstained, or nothing has a score.
        candidates: all that were ranked, in the order in which they were drawn.
        ranked: their ranking and results; its indices are places in `candidates`.
        unranked: completions that hold no text (a call of a tool, a refusal).
    """

    best: str | None
    candidates: tuple[Completion, ...]
    ranked: BestOfN
    unranked: tuple[Completion, ...]

    @property
    def scores(self) -> list[float | None]:
        """The candidates' scores; None for a candidate without a score."""
        return [result.score for result in self.ranked.results]


def best_of_n_from_chat(
    client: Client,
    model: str,
    chat: ChatModel,
    prompt: Prompt,
    *,
    n: int = 8,
    min_confidence: float | None = None,
    batch_size: int = 4,
    shared: Mapping[str, Any] | None = None,
) -> BestOfNSample:
    """Draw completions of a prompt, and rank them.

    Args:
        client: a client of Assay.
        model: the reward model.
        chat: the model that generates.
        prompt: a text, or messages.
        n: the maximum number of completions.
        min_confidence: stop as soon as the best is better than the next with this confidence, from
            0.5 to 1; for models whose card is calibrated. Without it all `n` are drawn.
        batch_size: completions between two rankings, with `min_confidence`.
        shared: the fields for the reward model: `{"prompt": prompt}` unless given.

    Raises:
        AssayError: of either server.
        ProtocolError: no completion holds a text.
        ValueError: an argument is invalid.
    """
    drawn = _DrawnCompletions(n)
    fields = {"prompt": prompt} if shared is None else dict(shared)

    def draw(count: int) -> list[str]:
        return drawn.add(chat.draw(prompt, count, start=drawn.count))

    if min_confidence is None:
        ranked = client.best_of_n(model, draw(n), **fields)
    else:
        ranked, _ = best_of_n_until_confident(
            client,
            model,
            draw,
            min_confidence=min_confidence,
            max_candidates=n,
            batch_size=batch_size,
            **fields,
        )
    return drawn.with_ranking(ranked)


async def best_of_n_from_chat_async(
    client: AsyncClient,
    model: str,
    chat: AsyncChatModel,
    prompt: Prompt,
    *,
    n: int = 8,
    min_confidence: float | None = None,
    batch_size: int = 4,
    shared: Mapping[str, Any] | None = None,
) -> BestOfNSample:
    """See `best_of_n_from_chat`."""
    drawn = _DrawnCompletions(n)
    fields = {"prompt": prompt} if shared is None else dict(shared)

    async def draw(count: int) -> list[str]:
        return drawn.add(await chat.draw(prompt, count, start=drawn.count))

    if min_confidence is None:
        ranked = await client.best_of_n(model, await draw(n), **fields)
    else:
        ranked, _ = await best_of_n_until_confident_async(
            client,
            model,
            draw,
            min_confidence=min_confidence,
            max_candidates=n,
            batch_size=batch_size,
            **fields,
        )
    return drawn.with_ranking(ranked)


class _DrawnCompletions:
    """The completions drawn so far, split by whether they can be ranked."""

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError("n must be at least 1")
        self._texts: list[Completion] = []
        self._others: list[Completion] = []

    @property
    def count(self) -> int:
        """The number of completions drawn."""
        return len(self._texts) + len(self._others)

    def add(self, completions: Sequence[Completion]) -> list[str]:
        """Add completions; return the texts among them.

        Raises:
            ProtocolError: there is none, and there was none before.
        """
        self._others += [completion for completion in completions if completion.text is None]
        new = [completion for completion in completions if completion.text is not None]
        self._texts += new
        if not self._texts:
            raise ProtocolError("no completion holds a text")
        return [str(completion.text) for completion in new]

    def with_ranking(self, ranked: BestOfN) -> BestOfNSample:
        """Return all completions with their ranking."""
        best = None if ranked.best is None else self._texts[ranked.best].text
        return BestOfNSample(best, tuple(self._texts), ranked, tuple(self._others))
