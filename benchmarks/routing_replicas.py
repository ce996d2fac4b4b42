"""Replicas in simulated time: their caches, their batches, and the Redis that they share.

The batches are formed by the server's own scheduler; the rest is a model of it. Times are seconds
of the simulation's clock.
"""

import math
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal

import simpy

from assay.batching.entry import Entry
from assay.batching.scheduler import Scheduler, ThroughputEstimator
from benchmarks.routing_trace import Arrival, shared_prefix_cost

Sharing = Literal["none", "redis", "flight"]
"""Shared by the replicas: nothing, Redis, or Redis with a single flight."""
Source = Literal["computed", "memory", "redis", "shared", "awaited"]
Process = Generator[simpy.Event, Any, Any]


@dataclass(frozen=True, kw_only=True)
class ReplicaConfig:
    """One replica: its device, and what the server adds to each request.

    A forward pass takes `overhead` seconds and its tokens divided by `speed`. The event loop takes
    `cpu` seconds for each request, one after the other; `redis` is a round trip.
    """

    speed: float = 50_000.0
    overhead: float = 0.004
    max_batch_tokens: int = 16_384
    max_batch_size: int = 64
    cpu: float = 0.0005
    redis: float = 0.0005


@dataclass(slots=True)
class SharedRedis:
    """The raws that all replicas read, and the texts that one of them computes for all."""

    sharing: Sharing
    raws: set[int] = field(default_factory=set)
    claims: dict[int, simpy.Event] = field(default_factory=dict)


class Replica:
    """One server with one device.

    Args:
        env: the simulation.
        config: its speed.
        redis: the cache that it shares.
    """

    def __init__(self, env: simpy.Environment, config: ReplicaConfig, redis: SharedRedis) -> None:
        self._env, self._config, self._redis = env, config, redis
        self._loop = simpy.Resource(env)
        self._throughput = ThroughputEstimator()
        self._scheduler: Scheduler[Entry] = Scheduler(shared_prefix_cost, 1 << 62, self._throughput)
        self._raws: set[int] = set()
        self._flights: dict[int, simpy.Event] = {}
        self._waiting: dict[int, simpy.Event] = {}
        self._work = env.event()
        self._is_busy = False
        self._staged: list[Entry] = []
        self.pending_tokens = 0
        self.computed: Counter[int] = Counter()
        self.computed_tokens = 0
        env.process(self._run_device())

    def serve(self, arrival: Arrival) -> Generator[simpy.Event, Any, Source]:
        """Serve one request; the process's value is the score's source."""
        self.pending_tokens += arrival.tokens
        with self._loop.request() as place:
            yield place
            yield self._env.timeout(self._config.cpu)
        source = yield from self._score(arrival)
        self.pending_tokens -= arrival.tokens
        return source

    def _score(self, arrival: Arrival) -> Generator[simpy.Event, Any, Source]:
        if arrival.text in self._raws:
            return "memory"
        flight = self._flights.get(arrival.text)
        if flight is not None:
            yield flight
            return "shared"
        flight = self._flights[arrival.text] = self._env.event()
        source = yield from self._score_first(arrival)
        self._raws.add(arrival.text)
        del self._flights[arrival.text]
        flight.succeed()
        return source

    def _score_first(self, arrival: Arrival) -> Generator[simpy.Event, Any, Source]:
        redis = self._redis
        if redis.sharing == "none":
            yield from self._compute(arrival)
            return "computed"
        yield self._env.timeout(self._config.redis)
        if arrival.text in redis.raws:
            return "redis"
        claim = redis.claims.get(arrival.text)
        if claim is not None and redis.sharing == "flight":
            yield claim
            yield self._env.timeout(self._config.redis)
            return "awaited"
        claim = redis.claims.setdefault(arrival.text, self._env.event())
        yield from self._compute(arrival)
        self._env.process(self._store(arrival.text, claim))
        return "computed"

    def _store(self, text: int, claim: simpy.Event) -> Process:
        yield self._env.timeout(self._config.redis)
        self._redis.raws.add(text)
        if not claim.triggered:
            claim.succeed()

    def _compute(self, arrival: Arrival) -> Process:
        row = arrival.to_input()
        entry = Entry(row, "training", math.inf, self._env.now, row.key)
        settled = self._waiting[id(entry)] = self._env.event()
        self._scheduler.add(entry)
        if not self._work.triggered:
            self._work.succeed()
        self._stage()
        self.computed[arrival.text] += 1
        yield settled

    def _form(self) -> list[Entry]:
        config = self._config
        batch = self._scheduler.form(self._env.now, config.max_batch_tokens, config.max_batch_size)
        return batch.entries

    def _stage(self) -> None:
        """Form the next batch behind the running one, once a full one has gathered."""
        config = self._config
        if self._is_busy and not self._staged:
            full = (config.max_batch_tokens, config.max_batch_size)
            if self._scheduler.holds_full_batch(*full):
                self._staged = self._form()

    def _run_device(self) -> Process:
        while True:
            entries = self._staged or self._form()
            self._staged = []
            if entries:
                self._is_busy = True
                self._stage()
                yield from self._run_pass(entries)
                self._is_busy = False
            else:
                self._work = self._env.event()
                yield self._work
                self._throughput.resume(self._env.now)

    def _run_pass(self, entries: list[Entry]) -> Process:
        config = self._config
        tokens = shared_prefix_cost([entry.input for entry in entries])
        seconds = config.overhead + tokens / config.speed
        yield self._env.timeout(seconds)
        self.computed_tokens += tokens
        true = sum(entry.input.tokens for entry in entries)
        full = tokens > config.max_batch_tokens / 2
        self._throughput.record(true, seconds, self._env.now, full)
        for entry in entries:
            self._scheduler.release(entry)
            self._waiting.pop(id(entry)).succeed()
