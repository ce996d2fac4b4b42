"""Batching of small requests that are in flight at the same time on one event loop.

A request is sent in the next iteration of the loop, with all others that were made until then.
While `MAX_IN_FLIGHT` batches per server are in flight, further requests collect for the next one.
No request waits for a timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from assay_client._transport.arguments import JsonObject
from assay_client._transport.calls import EncodedBatch
from assay_client._transport.requests import BatchKey
from assay_client.errors import (
    APIStatusError,
    APITimeoutError,
    AssayError,
    ProtocolError,
    copy_error,
)
from assay_client.types import Result, ScoreReply, Usage

MAX_BATCH_ITEMS = 64
# Long items do not wait for one another's bytes.
_MAX_BATCH_BYTES = 1 << 20
# Batches in flight for each key and server: enough to keep a server's queue filled between a reply
# and the next request.
MAX_IN_FLIGHT = 8
# Waiting requests that are passed over, at most, when one batch is filled.
_MAX_SKIPPED = 1024
# Statuses that a single item may have caused. Any other holds for each request as for all.
_ITEM_STATUS_CODES = frozenset({400, 413, 422, 500})

BatchReply = tuple[ScoreReply, str]
SendBatch = Callable[[EncodedBatch], Awaitable[BatchReply]]


@dataclass(eq=False)
class PendingRequest:
    """A caller's request: its items, its deadline, and the future of its reply."""

    items: Sequence[JsonObject]
    encoded: Sequence[bytes]
    deadline: float
    timeout: float
    reply: asyncio.Future[BatchReply]
    batch: Batch | None = None

    @property
    def groups(self) -> set[str]:
        """The groups that its items name."""
        return {item["group"] for item in self.items if isinstance(item.get("group"), str)}

    @property
    def size(self) -> int:
        """The size in bytes."""
        return sum(map(len, self.encoded))

    def expire(self) -> None:
        """Fail with a timeout, whatever becomes of its batch."""
        self.fail(APITimeoutError(f"the call was not over after {self.timeout:g} s"))

    def fail(self, error: Exception) -> None:
        """Fail with this error, if there is no reply yet."""
        if not self.reply.done():
            self.reply.set_exception(error)

    def leave(self) -> None:
        """Leave the batch. A batch that all requests have left is cancelled."""
        if self.batch is not None:
            self.batch.waiting -= 1
            if not self.batch.waiting and self.batch.task is not None:
                self.batch.task.cancel()


@dataclass(eq=False)
class Batch:
    """The requests sent as one, the number of them that still wait, and the task that sends it."""

    requests: Sequence[PendingRequest]
    waiting: int
    task: asyncio.Task[None] | None = None


@dataclass(eq=False)
class BatchQueue:
    """The waiting requests with one batch key.

    Attributes:
        in_flight: its batches that were sent and have no reply yet.
        is_scheduled: whether the event loop will dispatch it in its next iteration.
    """

    key: BatchKey
    waiting: deque[PendingRequest] = field(default_factory=deque)
    in_flight: int = 0
    is_scheduled: bool = False

    def take(self, max_items: int) -> list[PendingRequest]:
        """Take the requests of the next batch, with at most `max_items` items.

        Two requests that name the same group never share a batch: the ranks of a group would then
        cover more than the request that named it.
        """
        taken: list[PendingRequest] = []
        skipped: list[PendingRequest] = []
        groups: set[str] = set()
        room, items = _MAX_BATCH_BYTES, max_items
        while self.waiting and items and len(skipped) < _MAX_SKIPPED:
            request = self.waiting.popleft()
            if request.reply.done():
                continue
            fits = not taken or (request.size <= room and len(request.items) <= items)
            if not fits or groups & request.groups:
                skipped.append(request)
                if not fits:
                    break
                continue
            taken.append(request)
            groups |= request.groups
            room, items = room - request.size, items - len(request.items)
        self.waiting.extendleft(reversed(skipped))
        return taken


class RequestBatcher:
    """Batches the requests of one event loop.

    Args:
        send_batch: sends a batch and returns the reply to all of it.
        max_items: items in one batch.
        servers: the number of servers.
    """

    def __init__(self, send_batch: SendBatch, max_items: int, servers: int) -> None:
        self._send_batch = send_batch
        self._max_items = min(max_items, MAX_BATCH_ITEMS)
        self._max_in_flight = MAX_IN_FLIGHT * servers
        self._queues: dict[BatchKey, BatchQueue] = {}
        self._batches: set[Batch] = set()
        self._is_closed = False

    def accepts(self, items: Sequence[JsonObject]) -> bool:
        """Return whether a request is small enough to be batched."""
        return len(items) <= self._max_items

    async def submit(
        self,
        key: BatchKey,
        items: Sequence[JsonObject],
        *,
        encoded: Sequence[bytes],
        timeout: float,
        deadline: float,
    ) -> BatchReply:
        """Send a request; return the reply to its items alone, and the id of its batch.

        Args:
            key: the fields on which the requests of a batch agree.
            items: of one caller.
            encoded: each item as JSON.
            timeout: seconds until the deadline.
            deadline: on the client's clock.
        """
        loop = asyncio.get_running_loop()
        request = PendingRequest(
            items, encoded, deadline=deadline, timeout=timeout, reply=loop.create_future()
        )
        queue = self._queues.setdefault(key, BatchQueue(key))
        queue.waiting.append(request)
        self._schedule(queue)
        timer = loop.call_later(timeout, request.expire)
        try:
            return await request.reply
        finally:
            timer.cancel()
            request.leave()

    def close(self) -> None:
        """Fail all waiting requests, and cancel the batches in flight."""
        self._is_closed = True
        for queue in self._queues.values():
            for request in queue.waiting:
                request.fail(_closed_error())
        self._queues.clear()
        for batch in self._batches:
            if batch.task is not None:
                batch.task.cancel()

    def _schedule(self, queue: BatchQueue) -> None:
        if not queue.is_scheduled:
            queue.is_scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch, queue)

    def _dispatch(self, queue: BatchQueue) -> None:
        queue.is_scheduled = False
        while queue.waiting and queue.in_flight < self._max_in_flight and not self._is_closed:
            requests = queue.take(self._max_items)
            if requests:
                self._start(queue, requests)
        if not queue.waiting and not queue.in_flight:
            self._queues.pop(queue.key, None)

    def _start(self, queue: BatchQueue, requests: Sequence[PendingRequest]) -> None:
        batch = Batch(requests, len(requests))
        for request in requests:
            request.batch = batch
        queue.in_flight += 1
        self._batches.add(batch)
        batch.task = asyncio.get_running_loop().create_task(self._deliver(queue.key, requests))
        batch.task.add_done_callback(lambda task: self._finish(queue, batch, task))

    def _finish(self, queue: BatchQueue, batch: Batch, task: asyncio.Task[None]) -> None:
        """Settle every request, however the task ended, and dispatch the next ones."""
        queue.in_flight -= 1
        self._batches.discard(batch)
        for request in batch.requests:
            if request.reply.done():
                continue
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception):
                request.fail(error)
            elif self._is_closed:
                request.fail(_closed_error())
            else:
                request.reply.cancel()
        self._dispatch(queue)

    async def _deliver(self, key: BatchKey, requests: Sequence[PendingRequest]) -> None:
        try:
            reply, request_id = await self._send_batch(_encoded_batch(key, requests))
        except AssayError as error:
            await self._split(key, requests, error)
            return
        start = 0
        for request in requests:
            end = start + len(request.items)
            if not request.reply.done():
                request.reply.set_result((_slice_reply(reply, start, end), request_id))
            start = end

    async def _split(
        self, key: BatchKey, requests: Sequence[PendingRequest], error: AssayError
    ) -> None:
        """Send the requests again in halves, while a single item may be the cause of the error."""
        waiting = [request for request in requests if not request.reply.done()]
        if len(waiting) > 1 and _may_be_of_one_item(error):
            middle = len(waiting) // 2
            halves = (waiting[:middle], waiting[middle:])
            await asyncio.gather(*(self._deliver(key, half) for half in halves))
            return
        for request in waiting:
            request.fail(copy_error(error))


def _may_be_of_one_item(error: AssayError) -> bool:
    if isinstance(error, APIStatusError):
        return error.status_code in _ITEM_STATUS_CODES
    return isinstance(error, ProtocolError)


def _encoded_batch(key: BatchKey, requests: Sequence[PendingRequest]) -> EncodedBatch:
    items = [item for request in requests for item in request.items]
    encoded = [body for request in requests for body in request.encoded]
    return EncodedBatch(key, items, encoded, max(request.deadline for request in requests))


def _slice_reply(reply: ScoreReply, start: int, end: int) -> ScoreReply:
    """Return the reply that the items from `start` to `end` would have got alone."""
    results = tuple(
        replace(result, index=index) for index, result in enumerate(reply.results[start:end])
    )
    names = {result.group for result in results}
    groups = tuple(group for group in reply.groups if group.group in names)
    return replace(reply, results=results, groups=groups, usage=_usage(results))


def _usage(results: Sequence[Result]) -> Usage:
    sources = [result.source for result in results if result.status == "ok"]
    return Usage(
        items=len(results),
        tokens=sum(result.tokens or 0 for result in results),
        computed=sources.count("computed"),
        cached=sources.count("cache"),
        shared=sources.count("shared"),
        rule=sources.count("rule"),
        failed=len(results) - len(sources),
    )


def _closed_error() -> RuntimeError:
    return RuntimeError("the client is closed")
