"""Best of n over any endpoint that speaks OpenAI's chat completions: it writes, Assay ranks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from assay_client._transport.clock import Clock
from assay_client.async_client import AsyncClient
from assay_client.client import Client
from assay_client.errors import APIStatusError, ProtocolError
from assay_client.sampling._completions import Completion, Endpoint
from assay_client.sampling.best_of_n import draw_until_sure, draw_until_sure_async
from assay_client.types import BestOfN

if TYPE_CHECKING:
    from assay_client._transport.http import AsyncHTTPClient, HTTPClient

Prompt = Union[str, Sequence[Mapping[str, Any]]]


class ChatModel:
    """A model that answers `POST {base_url}/chat/completions`.

    Args:
        base_url: of the endpoint, up to its version: `http://127.0.0.1:8001/v1`.
        model: its name there.
        api_key: sent as `Authorization: Bearer`. There is no fallback: Assay's key is not for it.
        timeout: seconds for one request in all, its retries included.
        max_retries: how often a request is tried again.
        http_client: as for `Client`.
        clock: as for `Client`.
        **sampling: what else each request says: `temperature`, `max_tokens`, `top_p`, `seed`, ….
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
        self._endpoint = Endpoint(model, sampling)
        self._client = Client(
            base_url,
            api_key=api_key or "",
            timeout=timeout,
            max_retries=max_retries,
            http_client=http_client,
            clock=clock,
        )

    def draw(self, prompt: Prompt, count: int, *, start: int = 0) -> list[Completion]:
        """So many completions, with one request where the endpoint takes `n`, else with more.

        Args:
            prompt: a text, or messages.
            count: how many.
            start: how many were drawn before; a `seed` goes on from there.

        Raises:
            AssayError: the endpoint refuses, cannot be reached, or gives none.
            ValueError: the prompt cannot be written as JSON.
        """
        found: list[Completion] = []
        if count > 1 and self._endpoint.takes_n:
            try:
                found = self._ask(prompt, count, start)
            except APIStatusError as error:
                self._endpoint.learn(error)
        while len(found) < count:
            found += self._ask(prompt, 1, start + len(found))
        return found[:count]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> ChatModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, prompt: Prompt, count: int, start: int) -> list[Completion]:
        calls = self._client._ready_calls()
        steps = calls.send(self._endpoint.request(prompt, count, start))
        return self._endpoint.read(self._client._run(steps), count)


class AsyncChatModel:
    """As `ChatModel`, awaited; an endpoint that does not take `n` is asked for all at once."""

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
        self._endpoint = Endpoint(model, sampling)
        self._client = AsyncClient(
            base_url,
            api_key=api_key or "",
            timeout=timeout,
            max_retries=max_retries,
            http_client=http_client,
            clock=clock,
        )

    async def draw(self, prompt: Prompt, count: int, *, start: int = 0) -> list[Completion]:
        """As `ChatModel.draw`."""
        found: list[Completion] = []
        if count > 1 and self._endpoint.takes_n:
            try:
                found = await self._ask(prompt, count, start)
            except APIStatusError as error:
                self._endpoint.learn(error)
        first = start + len(found)
        singles = [
            asyncio.create_task(self._ask(prompt, 1, first + number))
            for number in range(count - len(found))
        ]
        try:
            for drawn in await asyncio.gather(*singles):
                found += drawn
        finally:
            for task in singles:
                task.cancel()
        return found[:count]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> AsyncChatModel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _ask(self, prompt: Prompt, count: int, start: int) -> list[Completion]:
        calls = self._client._ready_calls()
        steps = calls.send(self._endpoint.request(prompt, count, start))
        return self._endpoint.read(await self._client._run(steps), count)


@dataclass(frozen=True)
class Sampled:
    """What was drawn, and how it ranks.

    Attributes:
        best: the text of the best; None where the server abstained, or nothing has a score.
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
        """The candidates' scores; None for one without."""
        return [result.score for result in self.ranked.results]


def sample_best(
    client: Client,
    model: str,
    chat: ChatModel,
    prompt: Prompt,
    *,
    n: int = 8,
    min_confidence: float | None = None,
    at_once: int = 4,
    shared: Mapping[str, Any] | None = None,
) -> Sampled:
    """Draw completions of a prompt, and rank them.

    Args:
        client: asks Assay.
        model: the reward model.
        chat: the model that writes.
        prompt: a text, or messages.
        n: how many completions, at most.
        min_confidence: stop as soon as the best is trusted so much over the next, from 0.5 to 1;
            for models whose card is calibrated. Without it all `n` are drawn.
        at_once: how many between two looks, with `min_confidence`.
        shared: what the reward model gets of the prompt: `{"prompt": prompt}` unless given.

    Raises:
        AssayError: of either server.
        ProtocolError: no completion holds a text.
        ValueError: an argument cannot be meant.
    """
    drawing = _Drawing(n)
    fields = {"prompt": prompt} if shared is None else dict(shared)

    def draw(count: int) -> list[str]:
        return drawing.take(chat.draw(prompt, count, start=drawing.count))

    if min_confidence is None:
        ranked = client.best_of_n(model, draw(n), **fields)
    else:
        ranked, _ = draw_until_sure(
            client, model, draw, min_confidence=min_confidence, most=n, at_once=at_once, **fields
        )
    return drawing.ranked(ranked)


async def sample_best_async(
    client: AsyncClient,
    model: str,
    chat: AsyncChatModel,
    prompt: Prompt,
    *,
    n: int = 8,
    min_confidence: float | None = None,
    at_once: int = 4,
    shared: Mapping[str, Any] | None = None,
) -> Sampled:
    """As `sample_best`, awaited."""
    drawing = _Drawing(n)
    fields = {"prompt": prompt} if shared is None else dict(shared)

    async def draw(count: int) -> list[str]:
        return drawing.take(await chat.draw(prompt, count, start=drawing.count))

    if min_confidence is None:
        ranked = await client.best_of_n(model, await draw(n), **fields)
    else:
        ranked, _ = await draw_until_sure_async(
            client, model, draw, min_confidence=min_confidence, most=n, at_once=at_once, **fields
        )
    return drawing.ranked(ranked)


class _Drawing:
    """The completions of one sampling, sorted by whether they can be ranked."""

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError("n must be at least 1")
        self._texts: list[Completion] = []
        self._others: list[Completion] = []

    @property
    def count(self) -> int:
        """How many were drawn."""
        return len(self._texts) + len(self._others)

    def take(self, drawn: Sequence[Completion]) -> list[str]:
        """The texts among them.

        Raises:
            ProtocolError: there is none, and there was none before.
        """
        self._others += [one for one in drawn if one.text is None]
        new = [one for one in drawn if one.text is not None]
        self._texts += new
        if not self._texts:
            raise ProtocolError("no completion holds a text")
        return [str(one.text) for one in new]

    def ranked(self, ranked: BestOfN) -> Sampled:
        """All of it, with its ranking."""
        best = None if ranked.best is None else self._texts[ranked.best].text
        return Sampled(best, tuple(self._texts), ranked, tuple(self._others))
