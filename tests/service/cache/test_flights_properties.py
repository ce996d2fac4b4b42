"""Every interleaving of claims, waits, ends and failures gives right raws, in time."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Literal, TypeVar

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.doubles import new_metrics
from support.redis_caches import new_client
from support.tiers import NIGHTLY
from support.virtual_time import run_virtual

from assay.cache.flights import MAX_POLL_SECONDS, SharedFlights
from assay.cache.locks import ALIVE_SECONDS, KeyState, RedisLocks
from assay.cache.redis import RedisCache
from assay.errors import AssayError, DeadlineExceeded, InferenceFailed
from assay.metrics import FlightSeries
from assay_models.base import Raw

T = TypeVar("T")

Fault = Literal["none", "late", "lost", "unanswered", "refused"]
Incident = Literal["flush", "drop locks", "drop raws", "ghost", "damage"]
KEYS = [bytes([number]) * 32 for number in range(4)]
GHOST = b"g" * 16
TIMEOUT_SECONDS = 0.25
MAX_WAIT = 4.0
WRONG: Raw = (1.0, 2.0)
"""A raw of a length that no model has."""


def true_raw(key: bytes) -> Raw:
    return (float(key[0]),)


def is_valid(raw: Raw) -> bool:
    return len(raw) == 1


@dataclass
class Store:
    """The state of Redis. Locks and replicas end by themselves."""

    raws: dict[bytes, Raw] = field(default_factory=dict)
    locks: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)
    replicas: dict[bytes, float] = field(default_factory=dict)
    computed: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)

    def state(self, key: bytes) -> KeyState:
        raw = self.raws.get(key)
        token, ends = self.locks.get(key, (None, 0.0))
        is_held = raw is None and ends > asyncio.get_running_loop().time()
        return KeyState(raw, token if is_held else None)

    def happen(self, incident: Incident, replicas: Sequence["Replica"]) -> None:
        if incident in ("flush", "drop locks"):
            self.locks.clear()
        if incident in ("flush", "drop raws"):
            self.raws.clear()
        if incident == "flush":
            self.replicas.clear()
        if incident == "ghost":
            self.locks.update(dict.fromkeys(KEYS, (GHOST, 1e9)))
            self.replicas[GHOST] = 1e9
        if incident == "damage":
            self.raws.update(dict.fromkeys(KEYS, WRONG))


class Locks(RedisLocks):
    """The locks of one replica in the store. Calls fail as scripted, and never raise."""

    def __init__(self, store: Store, cache: RedisCache, faults: Sequence[Fault]) -> None:
        super().__init__(cache.client, cache, seconds=MAX_WAIT + ALIVE_SECONDS)
        self._store = store
        self._faults = cycle(faults)
        self.is_dead = False

    async def claim(self, keys: Sequence[bytes]) -> list[KeyState] | None:
        def execute() -> list[KeyState]:
            self._live()
            for key in keys:
                if self._store.state(key) == (None, None):
                    self._store.locks[key] = (self.token, self._now() + MAX_WAIT + ALIVE_SECONDS)
            return [self._store.state(key) for key in keys]

        return await self._call(execute)

    async def release(self, keys: Sequence[bytes]) -> None:
        def execute() -> None:
            for key in keys:
                if self._store.locks.get(key, (None, 0))[0] == self.token:
                    del self._store.locks[key]

        await self._call(execute)

    async def renew(self) -> None:
        await self._call(self._live)

    async def read(
        self, keys: Sequence[bytes], replicas: Collection[bytes]
    ) -> tuple[list[KeyState], set[bytes]] | None:
        def execute() -> tuple[list[KeyState], set[bytes]]:
            alive = {
                token for token in replicas if self._store.replicas.get(token, 0) > self._now()
            }
            return [self._store.state(key) for key in keys], alive

        return await self._call(execute)

    def _live(self) -> None:
        self._store.replicas[self.token] = self._now() + ALIVE_SECONDS

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _call(self, execute: Callable[[], T]) -> T | None:
        fault = next(self._faults)
        if fault == "refused":
            return None
        await asyncio.sleep(TIMEOUT_SECONDS * 0.8 if fault == "late" else 0.001)
        reply = None if fault == "lost" or self.is_dead else execute()
        if fault in ("lost", "unanswered"):
            await asyncio.sleep(TIMEOUT_SECONDS)
            return None
        await asyncio.sleep(0.001)
        return reply


class Replica:
    """One replica, whose batcher takes scripted seconds, and may fail."""

    def __init__(self, store: Store, faults: Sequence[Fault]) -> None:
        metrics = new_metrics()
        self.store = store
        self.client = new_client("redis://unused", clock=asyncio.get_running_loop().time)
        self.locks = Locks(store, RedisCache(self.client, ttl=60, metrics=metrics), faults)
        self.flights = SharedFlights(
            self.client, self.locks, max_wait=MAX_WAIT, series=FlightSeries(metrics)
        )
        self.entries: dict[bytes, asyncio.Task[Raw]] = {}

    async def compute_key(self, key: bytes, seconds: float) -> Raw:
        await asyncio.sleep(seconds)
        self.store.computed[key, self.locks.token] += 1
        return true_raw(key)

    async def compute(
        self, keys: Collection[bytes], seconds: float, deadline: float, fails: bool
    ) -> dict[bytes, Raw]:
        """Compute keys as a batcher does: identical keys in flight once, until the deadline."""
        loop = asyncio.get_running_loop()
        for key in keys:
            if key not in self.entries:
                self.entries[key] = asyncio.create_task(self.compute_key(key, seconds))
                self.entries[key].add_done_callback(partial(self.forget, key))
        tasks = {key: self.entries[key] for key in keys}
        if fails:
            raise InferenceFailed("scripted")
        await asyncio.wait(tasks.values(), timeout=max(0.0, deadline - loop.time()))
        if not all(task.done() for task in tasks.values()):
            raise DeadlineExceeded("scripted")
        raws = {key: task.result() for key, task in tasks.items()}
        self.client.run(self.write(raws))
        return raws

    def forget(self, key: bytes, _: object) -> None:
        del self.entries[key]

    async def look_up(self, keys: Collection[bytes]) -> dict[bytes, Raw]:
        await asyncio.sleep(0.001)
        raws = {key: self.store.raws[key] for key in keys if key in self.store.raws}
        await asyncio.sleep(0.001)
        return {key: raw for key, raw in raws.items() if is_valid(raw)}

    async def write(self, raws: Mapping[bytes, Raw]) -> None:
        await asyncio.sleep(0.002)
        if not self.locks.is_dead:
            self.store.raws.update(raws)

    async def close(self) -> None:
        while self.entries:
            await asyncio.wait(self.entries.values())
        await self.flights.close()
        await self.client.close()


@dataclass(frozen=True)
class Request:
    """A request of keys at a time to a replica."""

    replica: int
    starts: float
    keys: Sequence[bytes]
    seconds: float
    timeout: float
    fails: bool = False
    cancelled: float | None = None

    async def send(self, replica: Replica) -> None:
        """Check that each key is computed here, or has the right raw of another replica."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.starts)
        deadline = loop.time() + self.timeout
        own: dict[bytes, Raw] = {}

        async def compute(keys: Collection[bytes]) -> Mapping[bytes, Raw]:
            raws = await replica.compute(keys, self.seconds, deadline, self.fails)
            assert not own.keys() & raws.keys(), "a key is computed once"
            own.update(raws)
            return raws

        try:
            raws = await replica.look_up(self.keys)
            missing = [key for key in self.keys if key not in raws]
            if missing:
                raws |= await replica.flights.run(missing, deadline, compute, is_valid)
        except AssayError:
            assert self.fails or loop.time() >= deadline - 1e-9
        else:
            assert {**own, **raws} == {key: true_raw(key) for key in self.keys}
            assert not own.keys() & raws.keys()
        assert loop.time() <= deadline + 2 * TIMEOUT_SECONDS + 0.01, "no request hangs"


@dataclass(frozen=True)
class Story:
    """Requests, faults of calls by replica, incidents, and a kill of the first replica."""

    requests: Sequence[Request]
    faults: Sequence[Sequence[Fault]]
    incidents: Sequence[tuple[float, Incident]] = ()
    killed: float | None = None


async def play(story: Story) -> Counter[tuple[bytes, bytes]]:
    """Play a story; return how often each key was computed, by replica."""
    store = Store()
    replicas = [Replica(store, faults) for faults in story.faults]
    tasks = [asyncio.create_task(r.send(replicas[r.replica])) for r in story.requests]
    loop = asyncio.get_running_loop()
    for at, incident in story.incidents:
        loop.call_at(at, store.happen, incident, replicas)
    for request, task in zip(story.requests, tasks, strict=True):
        if request.cancelled is not None:
            loop.call_at(request.cancelled, task.cancel)
        if story.killed is not None and request.replica == 0:
            loop.call_at(story.killed, task.cancel)
    if story.killed is not None:
        loop.call_at(story.killed, setattr, replicas[0].locks, "is_dead", True)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if end is not None and not isinstance(end, asyncio.CancelledError):
            raise end
    for replica in replicas:
        await replica.close()
        flights = replica.flights
        assert (flights._held, flights._waits, flights._unwritten) == ({}, {}, {})
    return store.computed


FAULTS: list[Fault] = ["none", "none", "none", "late", "lost", "unanswered", "refused"]
INCIDENTS: list[Incident] = ["flush", "drop locks", "drop raws", "ghost", "damage"]
TIMES = st.sampled_from([0.0, 0.002, 0.04, 0.5, 1.5]) | st.floats(0, 3, allow_subnormal=False)
KEY_LISTS = st.lists(st.sampled_from(KEYS), min_size=1, unique=True)


def requests(replicas: int) -> st.SearchStrategy[list[Request]]:
    request = st.builds(
        Request,
        replica=st.integers(0, replicas - 1),
        starts=TIMES,
        keys=KEY_LISTS,
        seconds=st.sampled_from([0.001, 0.05, 1.0, 6.0]),
        timeout=st.sampled_from([0.1, 2.0, 30.0]),
        fails=st.sampled_from([False, False, False, True]),
        cancelled=st.none() | TIMES,
    )
    return st.lists(request, min_size=1, max_size=8)


stories = st.builds(
    Story,
    requests=requests(3),
    faults=st.lists(
        st.just(["none"]) | st.lists(st.sampled_from(FAULTS), min_size=1, max_size=7),
        min_size=3,
        max_size=3,
    ),
    incidents=st.lists(st.tuples(TIMES, st.sampled_from(INCIDENTS)), max_size=3),
    killed=st.none() | TIMES,
)


def one_after_the_other(
    timeout: float = 30.0, *, fails: bool = False, incident: Incident | None = None
) -> Story:
    """Return a story of two replicas, in which one computes what the other waits for."""
    first = Request(0, 0.0, KEYS, 2.0, 30.0, fails)
    second = Request(1, 0.04, KEYS, 0.05, timeout)
    return Story([first, second], [["none"]] * 2, [(0.5, incident)] if incident else [])


@given(stories)
@example(one_after_the_other(0.5))
@example(one_after_the_other(fails=True))
@example(one_after_the_other(incident="damage"))
@example(one_after_the_other(incident="flush"))
@example(one_after_the_other(incident="ghost"))
@settings(max_examples=300 if NIGHTLY else 400 if NIGHTLY else 80, deadline=None)
def test_whatever_fails_each_request_ends_in_time_with_right_raws(story: Story) -> None:
    run_virtual(play(story))


@given(
    st.lists(
        st.builds(
            Request,
            replica=st.integers(0, 2),
            starts=TIMES,
            keys=KEY_LISTS,
            seconds=st.sampled_from([0.001, 0.05, 1.0]),
            timeout=st.just(30.0),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=300 if NIGHTLY else 40, deadline=None)
@example([Request(n, 0.0, KEYS, 3.7, 30.0) for n in range(3)])
def test_without_a_failure_no_two_replicas_compute_one_key(requests: list[Request]) -> None:
    story = Story(requests, [["none"], ["none"], ["none"]])
    computed = run_virtual(play(story))
    assert len({key for key, _ in computed}) == len(computed)


async def seconds_of(story: Story) -> float:
    await play(story)
    return asyncio.get_running_loop().time()


def test_a_key_of_a_killed_replica_is_computed_when_that_is_no_longer_alive() -> None:
    first = Request(0, 0.0, KEYS, 1.0, 600.0)
    second = Request(1, 0.1, KEYS, 0.1, 600.0)
    story = Story([first, second], [["none"]] * 2, killed=0.2)
    latest = ALIVE_SECONDS + 1.25 * MAX_POLL_SECONDS + 0.2
    assert ALIVE_SECONDS < run_virtual(seconds_of(story)) < latest < MAX_WAIT


def test_a_key_of_a_replica_that_failed_is_computed_at_once() -> None:
    story = one_after_the_other(fails=True)
    assert run_virtual(seconds_of(story)) < 3.0 < MAX_WAIT, "its lock is released"


def test_a_replica_that_computes_for_longer_than_its_key_lasts_renews_it() -> None:
    slow = MAX_WAIT - MAX_POLL_SECONDS - 0.01
    assert slow > ALIVE_SECONDS
    story = Story(
        [Request(0, 0.0, KEYS, slow, 60.0), Request(1, 0.1, KEYS, slow, 60.0)], [["none"]] * 2
    )
    assert sorted(key for key, _ in run_virtual(play(story))) == KEYS
