"""Many small calls that are in the air at once on one event loop, sent together.

A call goes out at the next turn of the loop, with all others that were made until then. While
`_AT_ONCE` requests are under way the next one gathers itself; nobody waits for a clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from assay_client._transport.calls import Gathered
from assay_client._transport.requests import Item, Terms
from assay_client.errors import (
    APIStatusError,
    APITimeoutError,
    AssayError,
    ProtocolError,
    again,
)
from assay_client.types import Result, ScoreReply, Usage

MOST_ITEMS = 64
# Long items are not made to wait for one another's bytes.
_MOST_BYTES = 1 << 20
# Enough to keep a server's queue filled between a reply and the next request.
_AT_ONCE = 8
# How many waiting calls are looked at for one request.
_IN_VIEW = 1024
# What one item alone may have caused. Anything else is as true of each call as of all.
_OF_ONE_ITEM = frozenset({400, 413, 422, 500})

Answer = tuple[ScoreReply, str]
Carry = Callable[[Gathered], Awaitable[Answer]]


@dataclass(eq=False)
class Ask:
    """One caller's call: what it asks, until when, and where the answer goes."""

    items: Sequence[Item]
    encoded: Sequence[bytes]
    deadline: float
    timeout: float
    answer: asyncio.Future[Answer]
    bulk: Bulk | None = None

    @property
    def groups(self) -> set[str]:
        """The groups that its items name."""
        return {item["group"] for item in self.items if isinstance(item.get("group"), str)}

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(map(len, self.encoded))

    def expire(self) -> None:
        """Its time is over, whatever becomes of the request that carries it."""
        self.fail(APITimeoutError(f"the call was not over after {self.timeout:g} s"))

    def fail(self, error: Exception) -> None:
        """It gets this error, if it still waits."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def leave(self) -> None:
        """The caller is gone. A request that nobody waits for any more is given up."""
        if self.bulk is not None:
            self.bulk.left -= 1
            if not self.bulk.left and self.bulk.task is not None:
                self.bulk.task.cancel()


@dataclass(eq=False)
class Bulk:
    """The calls of one request, how many of them still wait, and the task that carries it."""

    asks: Sequence[Ask]
    left: int
    task: asyncio.Task[None] | None = None


@dataclass(eq=False)
class Lane:
    """The calls that may travel together, as they agree on the terms."""

    terms: Terms
    waiting: deque[Ask] = field(default_factory=deque)
    under_way: int = 0
    woken: bool = False

    def take(self, most: int) -> list[Ask]:
        """The next calls for one request, of `most` items at most.

        Two calls that name the same group never travel together: the ranks of a group would then
        be of more than the call that named it.
        """
        taken: list[Ask] = []
        passed: list[Ask] = []
        groups: set[str] = set()
        room, items = _MOST_BYTES, most
        while self.waiting and items and len(passed) < _IN_VIEW:
            ask = self.waiting.popleft()
            if ask.answer.done():
                continue
            fits = not taken or (ask.size <= room and len(ask.items) <= items)
            if not fits or groups & ask.groups:
                passed.append(ask)
                if not fits:
                    break
                continue
            taken.append(ask)
            groups |= ask.groups
            room, items = room - ask.size, items - len(ask.items)
        self.waiting.extendleft(reversed(passed))
        return taken


class Gatherer:
    """Gathers the calls of one event loop.

    Args:
        carry: sends what was gathered and gives the reply to all of it.
        most: items in one request.
        servers: how many there are.
    """

    def __init__(self, carry: Carry, most: int, servers: int) -> None:
        self._carry = carry
        self._most = min(most, MOST_ITEMS)
        self._at_once = _AT_ONCE * servers
        self._lanes: dict[Terms, Lane] = {}
        self._bulks: set[Bulk] = set()
        self._closed = False

    def takes(self, items: Sequence[Item]) -> bool:
        """Whether a call is small enough to be gathered."""
        return len(items) <= self._most

    async def ask(
        self,
        terms: Terms,
        items: Sequence[Item],
        encoded: Sequence[bytes],
        timeout: float,
        at: float,
    ) -> Answer:
        """The reply to these items alone, and the id of the request that carried them.

        Args:
            terms: what is asked of all items.
            items: of one caller.
            encoded: each as JSON.
            timeout: seconds that the caller gives it.
            at: when they are over, on the client's clock.
        """
        loop = asyncio.get_running_loop()
        ask = Ask(items, encoded, at, timeout, loop.create_future())
        lane = self._lanes.setdefault(terms, Lane(terms))
        lane.waiting.append(ask)
        self._wake(lane)
        timer = loop.call_later(timeout, ask.expire)
        try:
            return await ask.answer
        finally:
            timer.cancel()
            ask.leave()

    def close(self) -> None:
        """Nobody is answered any more: whoever waits is told so."""
        self._closed = True
        for lane in self._lanes.values():
            for ask in lane.waiting:
                ask.fail(_closed())
        self._lanes.clear()
        for bulk in self._bulks:
            if bulk.task is not None:
                bulk.task.cancel()

    def _wake(self, lane: Lane) -> None:
        if not lane.woken:
            lane.woken = True
            asyncio.get_running_loop().call_soon(self._pump, lane)

    def _pump(self, lane: Lane) -> None:
        lane.woken = False
        while lane.waiting and lane.under_way < self._at_once and not self._closed:
            asks = lane.take(self._most)
            if asks:
                self._send(lane, asks)
        if not lane.waiting and not lane.under_way:
            self._lanes.pop(lane.terms, None)

    def _send(self, lane: Lane, asks: Sequence[Ask]) -> None:
        bulk = Bulk(asks, len(asks))
        for ask in asks:
            ask.bulk = bulk
        lane.under_way += 1
        self._bulks.add(bulk)
        bulk.task = asyncio.get_running_loop().create_task(self._deliver(lane.terms, asks))
        bulk.task.add_done_callback(lambda task: self._over(lane, bulk, task))

    def _over(self, lane: Lane, bulk: Bulk, task: asyncio.Task[None]) -> None:
        """Every call is settled on every path, and the next ones go out."""
        lane.under_way -= 1
        self._bulks.discard(bulk)
        for ask in bulk.asks:
            if ask.answer.done():
                continue
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception):
                ask.fail(error)
            elif self._closed:
                ask.fail(_closed())
            else:
                ask.answer.cancel()
        self._pump(lane)

    async def _deliver(self, terms: Terms, asks: Sequence[Ask]) -> None:
        try:
            reply, request_id = await self._carry(_gathered(terms, asks))
        except AssayError as error:
            await self._part(terms, asks, error)
            return
        start = 0
        for ask in asks:
            end = start + len(ask.items)
            if not ask.answer.done():
                ask.answer.set_result((_share(reply, start, end), request_id))
            start = end

    async def _part(self, terms: Terms, asks: Sequence[Ask], error: AssayError) -> None:
        """Where one item may be the reason, the calls are sent in halves until it stands alone."""
        left = [ask for ask in asks if not ask.answer.done()]
        if len(left) > 1 and _is_of_one(error):
            middle = len(left) // 2
            halves = (left[:middle], left[middle:])
            await asyncio.gather(*(self._deliver(terms, half) for half in halves))
            return
        for ask in left:
            ask.fail(again(error))


def _is_of_one(error: AssayError) -> bool:
    if isinstance(error, APIStatusError):
        return error.status in _OF_ONE_ITEM
    return isinstance(error, ProtocolError)


def _gathered(terms: Terms, asks: Sequence[Ask]) -> Gathered:
    items = [item for ask in asks for item in ask.items]
    encoded = [body for ask in asks for body in ask.encoded]
    return Gathered(terms, items, encoded, max(ask.deadline for ask in asks))


def _share(reply: ScoreReply, start: int, end: int) -> ScoreReply:
    """The reply that the items from `start` to `end` would have got alone."""
    results = tuple(
        replace(result, index=index) for index, result in enumerate(reply.results[start:end])
    )
    named = {result.group for result in results}
    groups = tuple(group for group in reply.groups if group.group in named)
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


def _closed() -> RuntimeError:
    return RuntimeError("the client is closed")
