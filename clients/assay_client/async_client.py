"""The client for code on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from assay_client._base import BaseClient
from assay_client._calls import Send, Steps
from assay_client._http import AsyncHTTPClient, new_async_client, perform_async
from assay_client._requests import Reply
from assay_client.errors import AssayError
from assay_client.types import BestOfN, Model, OnError, Priority, RunHealth, ScoreReply

T = TypeVar("T")


class AsyncClient(BaseClient[AsyncHTTPClient]):
    """As `Client`, awaited: the same arguments, replies, errors and retries.

    It may be used from one event loop after another; each has its own connections.
    """

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
        return await self._run(
            self._ready_calls().score(
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
        return await self._run(
            self._ready_calls().score_one(
                model, item, options=options, run=run, timeout=timeout, priority=priority
            )
        )

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
        for pool in self._take_pools():
            await pool.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, steps: Steps[T]) -> T:
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

    def _loop_pool(self) -> AsyncHTTPClient:
        loop = asyncio.get_running_loop()
        self._forget(_ended)
        return self._pool(loop, new_async_client)


def _ended(loop: object) -> bool:
    return isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()
