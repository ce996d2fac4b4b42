"""The client for code on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from assay_client._transport.base import BaseClient
from assay_client._transport.calls import Gathered, Send, Steps, check_score, checked, signed
from assay_client._transport.clock import Clock
from assay_client._transport.gathering import Answer, Gatherer
from assay_client._transport.requests import Reply, encode_items, terms
from assay_client.errors import AssayError
from assay_client.types import BestOfN, Model, OnError, Priority, RunHealth, ScoreReply

if TYPE_CHECKING:
    from assay_client._transport.http import AsyncHTTPClient

T = TypeVar("T")


class AsyncClient(BaseClient["AsyncHTTPClient"]):
    """As `Client`, awaited: the same arguments, replies, errors and retries.

    It may be used from one event loop after another; each has its own connections.

    Args:
        base_url: as for `BaseClient`, like all others but the last.
        gather: whether calls of few items that are in the air at once are sent together. Each
            caller keeps its own deadline, may be cancelled, and gets its own items' reply or error.
    """

    def __init__(
        self,
        base_url: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 4,
        max_items_per_request: int = 1024,
        http_client: AsyncHTTPClient | None = None,
        clock: Clock | None = None,
        gather: bool = False,
    ) -> None:
        super().__init__(
            base_url,
            api_key=api_key,
            timeout=timeout,
            max_retries=max_retries,
            max_items_per_request=max_items_per_request,
            http_client=http_client,
            clock=clock,
        )
        self._config = replace(self._config, gather=gather)

    async def score(
        self,
        model: str,
        items: Sequence[Mapping[str, Any]],
        *,
        options: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        on_error: OnError = "raise",
        priority: Priority | None = None,
    ) -> ScoreReply:
        """As `Client.score`."""
        calls = self._ready_calls()
        gatherer = self._gatherer() if self._config.gather else None
        if gatherer is not None and gatherer.takes(items):
            check_score(items, on_error, priority)
            wanted, written = terms(model, options, run, priority), encode_items(items)
            reply, request_id = await gatherer.ask(wanted, items, written, *calls.time(timeout))
            with signed(request_id):
                return checked(reply, on_error)
        return await self._run(
            calls.score(
                model,
                items,
                options=options,
                run=run,
                timeout=timeout,
                on_error=on_error,
                priority=priority,
            )
        )

    async def score_one(
        self,
        model: str,
        item: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
    ) -> float:
        """As `Client.score_one`."""
        reply = await self.score(
            model, [item], options=options, run=run, timeout=timeout, priority=priority
        )
        return cast("float", reply.results[0].score)  # without one, the line above has raised

    async def best_of_n(
        self,
        model: str,
        candidates: Sequence[Any],
        *,
        top_n: int | None = None,
        tie_margin: float | None = None,
        abstain_below: float | None = None,
        min_confidence: float | None = None,
        options: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        **shared_fields: Any,
    ) -> BestOfN:
        """As `Client.best_of_n`."""
        choices = {
            "top_n": top_n,
            "tie_margin": tie_margin,
            "abstain_below": abstain_below,
            "min_confidence": min_confidence,
            "options": options,
            "run": run,
        }
        return await self._run(
            self._ready_calls().best_of_n(
                model,
                candidates,
                choices=choices,
                shared=shared_fields,
                timeout=timeout,
                priority=priority,
            )
        )

    async def models(self) -> list[Model]:
        """As `Client.models`."""
        return await self._run(self._ready_calls().models())

    async def model(self, name: str) -> Model:
        """As `Client.model`."""
        return await self._run(self._ready_calls().model(name))

    async def health(self, run: str, *, timeout: float | None = None) -> RunHealth:
        """As `Client.health`."""
        return await self._run(self._ready_calls().health(run, timeout))

    async def tell(
        self, run: str, step: int, values: Mapping[str, float], *, timeout: float | None = None
    ) -> None:
        """As `Client.tell`."""
        await self._run(self._ready_calls().tell(run, step, values, timeout))

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._run(self._ready_calls().probe("/readyz"))

    async def healthy(self) -> bool:
        """As `Client.healthy`."""
        return await self._run(self._ready_calls().probe("/healthz"))

    async def aclose(self) -> None:
        """Close the connections. The client cannot be used any more."""
        gatherer = self._gatherers.pop(asyncio.get_running_loop(), None)
        if gatherer is not None:
            gatherer.close()
        for pool in self._take_pools():
            await pool.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, steps: Steps[T]) -> T:
        # Only a call needs the HTTP library, which takes longest to import.
        from assay_client._transport.http import perform_async

        pool = self._loop_pool()
        try:
            step = next(steps)
            while True:
                reply: Reply | None = None
                try:
                    if isinstance(step, Send):
                        reply = await perform_async(pool, step, self._clock.monotonic)
                    else:
                        await self._clock.async_sleep(step.seconds)
                except AssayError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as done:
            return cast("T", done.value)
        finally:
            steps.close()

    def _start(self) -> None:
        super()._start()
        self._gatherers: dict[object, Gatherer] = {}

    def _gatherer(self) -> Gatherer:
        loop = asyncio.get_running_loop()
        gatherer = self._gatherers.get(loop)
        if gatherer is None:
            self._gatherers = {
                each: one for each, one in self._gatherers.items() if not _ended(each)
            }
            self._loop_pool()  # now, and not at the cost of the first call's deadline
            config = self._config
            gatherer = Gatherer(self._carry, config.max_items_per_request, len(config.base_urls))
            self._gatherers[loop] = gatherer
        return gatherer

    async def _carry(self, asked: Gathered) -> Answer:
        return await self._run(self._ready_calls().gathered(asked))

    def _loop_pool(self) -> AsyncHTTPClient:
        from assay_client._transport.http import new_async_client

        loop = asyncio.get_running_loop()
        self._forget(_ended)
        return self._pool(loop, new_async_client)


def _ended(loop: object) -> bool:
    return isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()
