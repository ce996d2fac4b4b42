"""SharedFlights: of identical keys that several replicas need at once, one of them computes.

The replica that gets a key's lock computes it; the others wait until the raw is stored. Redis can
make this slower, and never wrong: a raw that arrives is checked as every stored raw is, and a
replica that waits in vain computes.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from assay.cache.locks import KeyState, RedisLocks
from assay.cache.memory import ScoreCache
from assay.cache.redis_client import RedisClient
from assay.metrics import FlightSeries
from assay_models.base import Raw

Compute = Callable[[Collection[bytes]], Awaitable[Mapping[bytes, Raw]]]
"""Computes keys here, stores their raws, and returns those that did not fail."""

RENEW_SECONDS = 1.0
MIN_POLL_SECONDS = 0.005
MAX_POLL_SECONDS = 0.25
POLLS_PER_AGE = 4.0
"""A key is polled again after a fourth of the time for which it has been waited for."""


@dataclass(slots=True, eq=False)
class _Wait:
    """A key that another replica computes. `done` gets its raw; None if it is not to come."""

    done: asyncio.Future[Raw | None]
    since: float
    due: float
    waiters: int = 0
    holder: bytes | None = None


class SharedFlights:
    """The keys that this replica computes for others, and those that it waits for.

    All keys waited for are polled by one task, with one MGET at a time.

    Args:
        client: the client of the Redis.
        locks: the locks in that Redis.
        max_wait: seconds for which a key is waited for, and at most half of the time left.
        series: counters of claims.
        memory: the cache that received raws are copied into; None for none.
    """

    def __init__(
        self,
        client: RedisClient,
        locks: RedisLocks,
        *,
        max_wait: float,
        series: FlightSeries,
        memory: ScoreCache | None = None,
    ) -> None:
        self._client = client
        self._locks = locks
        self._max_wait = max_wait
        self._series = series
        self._memory = memory
        self._held: Counter[bytes] = Counter()
        self._unwritten: dict[bytes, Raw] = {}
        self._waits: dict[bytes, _Wait] = {}
        self._wake = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(
        self,
        keys: Sequence[bytes],
        deadline: float,
        compute: Compute,
        is_valid: Callable[[Raw], bool],
    ) -> dict[bytes, Raw]:
        """Return the raws that other replicas computed, and have the other keys computed here.

        Args:
            keys: distinct keys without a raw.
            deadline: the request's, of the client's clock.
            compute: called at most twice, with keys that together are all without a raw of others.
            is_valid: whether a raw can be the model's.

        Raises:
            AssayError: `compute` raised it.
        """
        raws, others = await self._claim(keys)
        raws = {key: raw for key, raw in raws.items() if is_valid(raw)}
        here = [key for key in keys if key not in raws and key not in others]
        if not others:
            await self._compute(here, compute)
            return raws
        try:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(self._wait(others, deadline, compute, is_valid))
                await self._compute(here, compute)
        except ExceptionGroup as failures:  # the first has cancelled the other half
            raise failures.exceptions[0] from None
        return raws | waiting.result()

    async def close(self) -> None:
        """Stop waiting: what is waited for is computed here."""
        if self._timer is not None:
            self._timer.cancel()
        self._end(list(self._waits), None)
        self._wake.set()
        if self._polling is not None:
            await asyncio.wait({self._polling})

    async def _claim(self, keys: Sequence[bytes]) -> tuple[dict[bytes, Raw], set[bytes]]:
        """Return the raws there are by now, and the keys that other replicas compute.

        Keys in flight here need no lock.
        """
        others = {key for key in keys if key in self._waits}
        new = [
            key
            for key in keys
            if not (key in others or key in self._held or key in self._unwritten)
        ]
        states: Sequence[KeyState] | None = None
        if new:
            try:
                states = await self._locks.claim(new)
            except asyncio.CancelledError:  # they may be locked by now
                self._client.run(self._locks.release(new))
                raise
        found = dict(zip(new, states, strict=True)) if states else {}
        raws = {key: state.raw for key, state in found.items() if state.raw is not None}
        raws |= {key: self._unwritten[key] for key in keys if key in self._unwritten}
        own = (None, self._locks.token)
        others |= {key for key, state in found.items() if state.holder not in own} - raws.keys()
        self._series.count(won=len(found.keys() - raws.keys() - others), lost=len(others))
        return raws, others

    async def _compute(self, keys: Collection[bytes], compute: Compute) -> None:
        if not keys:
            return
        self._held.update(keys)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RENEW_SECONDS, self._renew)
        raws: Mapping[bytes, Raw] = {}
        try:
            raws = await compute(keys)
        finally:
            self._held.subtract(keys)
            ended = [key for key in keys if not self._held[key]]
            for key in ended:
                del self._held[key]
            self._release(ended, {key: raws[key] for key in ended if key in raws})

    def _release(self, keys: Sequence[bytes], raws: Mapping[bytes, Raw]) -> None:
        """Release keys in the background, after the writes that are pending now."""
        if not keys:
            return
        writes = self._client.pending
        self._unwritten.update(raws)

        async def release() -> None:
            if writes:
                await asyncio.wait(writes)
            await self._locks.release(keys)
            for key in raws:
                self._unwritten.pop(key, None)

        self._client.run(release())

    def _renew(self) -> None:
        """Renew this replica in Redis, again and again until nothing is computed."""
        self._timer = None
        if self._held:
            self._client.run(self._locks.renew())
            self._timer = asyncio.get_running_loop().call_later(RENEW_SECONDS, self._renew)

    async def _wait(
        self,
        keys: Collection[bytes],
        deadline: float,
        compute: Compute,
        is_valid: Callable[[Raw], bool],
    ) -> dict[bytes, Raw]:
        """Return the raws that arrive in time, and have the other keys computed here."""
        received = await self._receive(keys, deadline)
        raws = {key: raw for key, raw in received.items() if is_valid(raw)}
        self._series.count(received=len(raws), given_up=len(keys) - len(raws))
        if raws and self._memory is not None:
            await self._memory.put_many(raws)
        await self._compute([key for key in keys if key not in raws], compute)
        return raws

    async def _receive(self, keys: Collection[bytes], deadline: float) -> dict[bytes, Raw]:
        now = self._client.clock()
        waits = {key: self._join(key, now) for key in keys}
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll(), name="poll shared flights")
        self._wake.set()
        seconds = max(0.0, min(self._max_wait, (deadline - now) / 2))
        try:
            await asyncio.wait([wait.done for wait in waits.values()], timeout=seconds)
        finally:
            for key, wait in waits.items():
                self._leave(key, wait)
        ended = {key: wait.done.result() for key, wait in waits.items() if wait.done.done()}
        return {key: raw for key, raw in ended.items() if raw is not None}

    def _join(self, key: bytes, now: float) -> _Wait:
        wait = self._waits.get(key)
        if wait is None:
            done = asyncio.get_running_loop().create_future()
            wait = self._waits[key] = _Wait(done, now, now + MIN_POLL_SECONDS)
        wait.waiters += 1
        return wait

    def _leave(self, key: bytes, wait: _Wait) -> None:
        wait.waiters -= 1
        if not wait.waiters and self._waits.get(key) is wait:
            del self._waits[key]

    async def _poll(self) -> None:
        while self._waits:
            self._wake.clear()
            now = self._client.clock()
            due = now + MIN_POLL_SECONDS / 2  # those that are nearly due come along
            keys = [key for key, wait in self._waits.items() if wait.due <= due]
            if keys:
                await self._poll_once(keys)
            else:
                await self._sleep(min(wait.due for wait in self._waits.values()) - now)

    async def _sleep(self, seconds: float) -> None:
        """Sleep until the time is over or another key is waited for."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _poll_once(self, keys: Sequence[bytes]) -> None:
        holders = {self._waits[key].holder for key in keys} - {None}
        replicas = [holder for holder in holders if holder is not None]
        read = await self._locks.read(keys, replicas)
        if read is None:  # computing is always right
            self._end(keys, None)
            return
        states, alive = read
        now = self._client.clock()
        for key, (raw, holder) in zip(keys, states, strict=True):
            wait = self._waits.get(key)
            if wait is None:
                continue
            is_lost = holder in (None, self._locks.token)
            is_dead = holder == wait.holder and holder not in alive
            if raw is not None or is_lost or is_dead:
                self._end([key], raw)
                continue
            age = now - wait.since
            pause = min(MAX_POLL_SECONDS, max(MIN_POLL_SECONDS, age / POLLS_PER_AGE))
            wait.holder, wait.due = holder, now + pause

    def _end(self, keys: Sequence[bytes], raw: Raw | None) -> None:
        for key in keys:
            wait = self._waits.pop(key, None)
            if wait is not None and not wait.done.done():
                wait.done.set_result(raw)
