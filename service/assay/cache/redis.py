"""RedisCache: raws shared between processes.

An unreachable, slow or faulty Redis makes scoring slower, never wrong and never unavailable.
"""

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from assay.cache.keys import decode, encode
from assay.cache.redis_state import OPERATIONS, Operation, RedisState
from assay.metrics import Metrics, TierSeries
from assay_models.base import Raw

T = TypeVar("T")

MAX_PAUSE_SECONDS = 30.0
MAX_WRITES = 256
# Purposes of derived keys.
NAME, CHECKSUM = b"assay name", b"assay checksum"
# Two keys of different slots: a Redis Cluster refuses them together wherever it keeps them.
START_KEYS = (b"start-1", b"start-2")


class Pause:
    """A pause after failures, which doubles up to `MAX_PAUSE_SECONDS`.

    Args:
        first: seconds of the first pause.
        clock: monotonic seconds.
    """

    def __init__(self, first: float, clock: Callable[[], float]) -> None:
        self._first = first
        self._clock = clock
        self._seconds = 0.0
        self._until = self._failed_at = -math.inf

    def is_over(self) -> bool:
        """Return whether calls may be made."""
        return self._clock() >= self._until

    def end(self) -> None:
        """Begin with the first pause again at the next failure."""
        self._seconds = 0.0

    def lengthen(self, began: float) -> None:
        """Double the pause, once for calls that fail together.

        Args:
            began: when the failed call began.
        """
        if began > self._failed_at:
            self._seconds = min(MAX_PAUSE_SECONDS, max(self._first, self._seconds * 2))
            self._failed_at = self._clock()
            self._until = self._failed_at + self._seconds


class RedisCache:
    """A cache of raws in Redis, shared between processes.

    Each call is bounded by `timeout` seconds. After a failure, Redis is not read, or not written,
    for a `Pause`, so that a hung server does not cost every request a timeout, and a full one is
    still read. `state` names the reason. The protocol is RESP2, which every Redis and every proxy
    speaks. A value carries a checksum keyed by its own key: a value of another key, or a damaged
    one, is a miss.

    Args:
        url: the server's URL.
        ttl: seconds for which a raw stays.
        timeout: seconds that each call may take.
        metrics: counters of lookups.
        clock: monotonic seconds.
        secret: the secret without which neither the name nor the checksum of a value can be
            computed; empty for none.

    Raises:
        ValueError: the URL is malformed.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl: int,
        timeout: float,
        metrics: Metrics,
        clock: Callable[[], float],
        secret: bytes = b"",
    ) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
            protocol=2,
            driver_info=None,  # there are proxies that close the connection at CLIENT SETINFO
        )
        self.state = RedisState(metrics.cache_up.labels("redis"), clock)
        self._ttl = ttl
        self._secret = hashlib.sha256(secret).digest() if secret else b""
        self._timeout = timeout
        self._series = TierSeries(metrics, "redis")
        self._clock = clock
        self._pauses = {operation: Pause(timeout, clock) for operation in OPERATIONS}
        self._tasks: set[asyncio.Task[object]] = set()

    def start(self) -> None:
        """Read from Redis in the background, so that a wrong URL is seen at start."""
        self._run(self._bounded("reads", lambda: self._read(START_KEYS), 0))

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """Return the raws that are stored and intact, with one MGET."""
        if not keys:
            return {}
        values = await self._bounded("reads", lambda: self._read(keys), len(keys))
        if not isinstance(values, list) or len(values) != len(keys):
            return {}
        decoded = {
            key: decode(self._derived(key, CHECKSUM), value)
            for key, value in zip(keys, values, strict=True)
            if value is not None
        }
        hits = {key: raw for key, raw in decoded.items() if raw is not None}
        damaged = len(decoded) - len(hits)
        self._series.count(hits=len(hits), misses=len(keys) - len(decoded), errors=damaged)
        return hits

    async def put_many(self, raws: Mapping[bytes, Raw]) -> None:
        """Store raws without making the caller wait; drop them if too many writes are pending."""
        if raws and len(self._tasks) < MAX_WRITES:
            self._run(self._bounded("writes", lambda: self._store(dict(raws)), 0))

    async def close(self) -> None:
        """Wait for the pending writes (each is bounded), then disconnect."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._redis.aclose()

    def _run(self, call: Coroutine[object, object, object]) -> None:
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _read(self, keys: Sequence[bytes]) -> Awaitable[list[object]]:
        return cast(Awaitable[list[object]], self._redis.mget([self._name(key) for key in keys]))

    async def _store(self, raws: Mapping[bytes, Raw]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, raw in raws.items():
                value = encode(self._derived(key, CHECKSUM), raw)
                pipe.set(self._name(key), value, ex=self._ttl)
            await pipe.execute()

    async def _bounded(
        self, operation: Operation, call: Callable[[], Awaitable[T]], keys: int
    ) -> T | None:
        pause = self._pauses[operation]
        if not pause.is_over():
            self._series.count(errors=keys)
            return None
        began = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await call()
        except Exception as error:  # noqa: BLE001 a faulty server can make its client raise anything; a miss is always right
            self._series.count(errors=max(1, keys))
            # A refused command says nothing about others; a bad connection does.
            failing = (operation,) if isinstance(error, ResponseError) else OPERATIONS
            self.state.record_failure(failing, error)
            for name in failing:
                self._pauses[name].lengthen(began)
            return None
        self.state.record_success(operation)
        pause.end()
        return answer

    def _name(self, key: bytes) -> bytes:
        return b"assay:" + self._derived(key, NAME)

    def _derived(self, key: bytes, purpose: bytes) -> bytes:
        """Return the key for a purpose; with a secret, one that cannot be computed without it."""
        if not self._secret:
            return key
        return hashlib.blake2b(key, digest_size=32, key=self._secret, person=purpose).digest()
