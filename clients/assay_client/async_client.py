"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from assay_client._transport.arguments import (
    Candidates,
    Columns,
    Items,
    Run,
    score_arguments,
    single_item,
    to_run,
)
from assay_client._transport.base import BaseClient
from assay_client._transport.batching import BatchReply, RequestBatcher
from assay_client._transport.calls import EncodedBatch, raise_if_failed
from assay_client._transport.clock import Clock
from assay_client._transport.config import MAX_REPLY_BYTES
from assay_client._transport.requests import Request, batch_key, encode_items
from assay_client._transport.steps import Send, Steps
from assay_client.errors import AssayError
from assay_client.types import BestOfN, Model, OnError, Priority, Response, RunHealth, ScoreReply

if TYPE_CHECKING:
    from assay_client._transport.http import AsyncHTTPClient

T = TypeVar("T")


class AsyncClient(BaseClient["AsyncHTTPClient"]):
    """An asynchronous client of Assay, with the arguments, replies, errors and retries of `Client`.

    It may be used from one event loop after another; each has its own connections.

    Args:
        base_url: as for `BaseClient`, like all others but the last.
        gather: whether calls of few items that are in flight at the same time are sent as one
            request. Each caller keeps its own deadline, may be cancelled, and gets the reply or
            error of its own items.
    """

    def __init__(
        self,
        base_url: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 4,
        max_items_per_request: int = 1024,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        http_client: AsyncHTTPClient | None = None,
        clock: Clock | None = None,
        session_ids: bool = True,
        gather: bool = False,
    ) -> None:
        super().__init__(
            base_url,
            api_key=api_key,
            timeout=timeout,
            max_retries=max_retries,
            max_items_per_request=max_items_per_request,
            max_reply_bytes=max_reply_bytes,
            http_client=http_client,
            clock=clock,
            session_ids=session_ids,
        )
        self._config = replace(self._config, gather=gather)

    async def score(
        self,
        model: str,
        items: Items,
        *,
        fields: Columns | None = None,
        options: Mapping[str, Any] | None = None,
        run: Run | None = None,
        step: int | None = None,
        timeout: float | None = None,
        on_error: OnError = "raise",
        priority: Priority | None = None,
    ) -> ScoreReply:
        """See `Client.score`."""
        arguments = score_arguments(
            model,
            items,
            fields=fields,
            options=options,
            run=run,
            step=step,
            on_error=on_error,
            priority=priority,
        )
        calls = self._open_calls()
        batcher = self._batcher() if self._config.gather else None
        if batcher is None or not batcher.accepts(arguments.items):
            return await self._run(calls.score(arguments, timeout))
        key, encoded = batch_key(arguments), encode_items(arguments.items)
        seconds, deadline = calls.time_limit(timeout)
        reply, request_id = await batcher.submit(
            key, arguments.items, encoded=encoded, timeout=seconds, deadline=deadline
        )
        return raise_if_failed(reply, on_error, request_id)

    async def score_one(
        self,
        model: str,
        item: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        run: Run | None = None,
        step: int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
    ) -> float:
        """See `Client.score_one`."""
        reply = await self.score(
            model,
            single_item(item),
            options=options,
            run=run,
            step=step,
            timeout=timeout,
            priority=priority,
        )
        return cast("float", reply.results[0].score)  # the call above raises if there is none

    async def best_of_n(
        self,
        model: str,
        candidates: Candidates,
        *,
        top_n: int | None = None,
        tie_margin: float | None = None,
        abstain_below: float | None = None,
        min_confidence: float | None = None,
        options: Mapping[str, Any] | None = None,
        run: Run | None = None,
        step: int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        **shared_fields: Any,
    ) -> BestOfN:
        """See `Client.best_of_n`."""
        choices = {
            "top_n": top_n,
            "tie_margin": tie_margin,
            "abstain_below": abstain_below,
            "min_confidence": min_confidence,
            "options": options,
            "run": to_run(run, step),
        }
        return await self._run(
            self._open_calls().best_of_n(
                model,
                candidates,
                choices=choices,
                shared=shared_fields,
                timeout=timeout,
                priority=priority,
            )
        )

    async def models(self) -> list[Model]:
        """See `Client.models`."""
        return await self._run(self._open_calls().models())

    async def model(self, name: str) -> Model:
        """See `Client.model`."""
        return await self._run(self._open_calls().model(name))

    async def run_health(self, run: Run, *, timeout: float | None = None) -> RunHealth:
        """See `Client.run_health`."""
        return await self._run(self._open_calls().run_health(run, timeout))

    async def record_telemetry(
        self, run: Run, step: int, values: Mapping[str, float], *, timeout: float | None = None
    ) -> None:
        """See `Client.record_telemetry`."""
        await self._run(self._open_calls().record_telemetry(run, step, values, timeout))

    async def is_ready(self) -> bool:
        """See `Client.is_ready`."""
        return await self._run(self._open_calls().probe("/readyz"))

    async def wait_until_ready(self, timeout: float = 300.0) -> None:
        """See `Client.wait_until_ready`."""
        await self._run(self._open_calls().wait_until_ready(timeout))

    async def is_live(self) -> bool:
        """See `Client.is_live`."""
        return await self._run(self._open_calls().probe("/healthz"))

    async def request(self, method: str, path: str, *, content: bytes | None = None) -> Response:
        """See `Client.request`."""
        return await self._run(self._open_calls().request(Request(method, path, content)))

    async def aclose(self) -> None:
        """Close the connections. The client cannot be used any more."""
        batcher = self._batchers.pop(asyncio.get_running_loop(), None)
        if batcher is not None:
            batcher.close()
        for pool in self._detach_pools():
            await pool.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, steps: Steps[T]) -> T:
        send = self._sender()
        try:
            step = next(steps)
            while True:
                response: Response | None = None
                try:
                    if isinstance(step, Send):
                        response = await send(step)
                    else:
                        await self._clock.async_sleep(step.seconds)
                except AssayError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as done:
            return cast("T", done.value)
        finally:
            steps.close()

    def _reset(self) -> None:
        super()._reset()
        self._batchers: dict[object, RequestBatcher] = {}

    def _batcher(self) -> RequestBatcher:
        loop = asyncio.get_running_loop()
        batcher = self._batchers.get(loop)
        if batcher is None:
            self._batchers = {
                other: kept for other, kept in self._batchers.items() if not _is_ended(other)
            }
            self._sender()  # made here, so that it does not take time of the first deadline
            config = self._config
            batcher = RequestBatcher(
                self._send_batch, config.max_items_per_request, len(config.base_urls)
            )
            self._batchers[loop] = batcher
        return batcher

    async def _send_batch(self, batch: EncodedBatch) -> BatchReply:
        return await self._run(self._open_calls().score_batch(batch))

    def _sender(self) -> Callable[[Send], Awaitable[Response]]:
        """Return the function that sends a request with the connections of this event loop."""
        # Imported by the first call, because the HTTP library takes longest to import.
        from assay_client._transport.http import new_async_client, perform_async

        self._drop_pools(_is_ended)
        pool = self._pool(asyncio.get_running_loop(), new_async_client)
        return lambda send: perform_async(pool, send, self._clock.monotonic)


def _is_ended(loop: object) -> bool:
    return isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()
