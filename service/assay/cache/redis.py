"""RedisCache: raws shared between processes.

An unreachable, slow or faulty Redis makes scoring slower, never wrong and never unavailable.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from assay.cache.keys import decode, encode
from assay.metrics import Metrics, TierSeries
from assay_models.base import Raw

T = TypeVar("T")

MAX_PAUSE_SECONDS = 30.0
MAX_WRITES = 256


class RedisCache:
    """A cache of raws in Redis, shared between processes.

    Each call is bounded by `timeout` seconds. After a failure, Redis is not called for a pause that
    doubles up to `MAX_PAUSE_SECONDS`, so that a hung server does not cost every request a timeout.
    A value carries a checksum keyed by its own key: a value of another key, or a damaged one, is a
    miss.

    Args:
        url: the server's URL.
        ttl: seconds for which a raw stays.
        timeout: seconds that each call may take.
        metrics: counters of lookups.
        clock: monotonic seconds.

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
    ) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
        self._ttl = ttl
        self._timeout = timeout
        self._series = TierSeries(metrics, "redis")
        self._clock = clock
        self._pause = 0.0
        self._paused_until = self._failed_at = -math.inf
        self._writes: set[asyncio.Task[object]] = set()

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """Return the raws that are stored and intact, with one MGET."""
        if not keys:
            return {}
        values = await self._bounded(
            lambda: cast(Awaitable[list[object]], self._redis.mget(list(map(_name, keys)))),
            len(keys),
        )
        if not isinstance(values, list) or len(values) != len(keys):
            return {}
        decoded = {
            key: decode(key, value)
            for key, value in zip(keys, values, strict=True)
            if value is not None
        }
        hits = {key: raw for key, raw in decoded.items() if raw is not None}
        damaged = len(decoded) - len(hits)
        self._series.count(hits=len(hits), misses=len(keys) - len(decoded), errors=damaged)
        return hits

    async def put_many(self, raws: Mapping[bytes, Raw]) -> None:
        """Store raws without making the caller wait; drop them if too many writes are pending."""
        if raws and len(self._writes) < MAX_WRITES:
            write = asyncio.create_task(self._bounded(lambda: self._store(dict(raws)), 0))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)

    async def close(self) -> None:
        """Wait for the pending writes (each is bounded), then disconnect."""
        if self._writes:
            await asyncio.wait(self._writes)
        await self._redis.aclose()

    async def _store(self, raws: Mapping[bytes, Raw]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, raw in raws.items():
                pipe.set(_name(key), encode(key, raw), ex=self._ttl)
            await pipe.execute()

    async def _bounded(self, call: Callable[[], Awaitable[T]], keys: int) -> T | None:
        if self._clock() < self._paused_until:
            self._series.count(errors=keys)
            return None
        began = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await call()
        except Exception:  # noqa: BLE001 a faulty server can make its client raise anything; a miss is always right
            self._series.count(errors=max(1, keys))
            self._lengthen_pause(began)
            return None
        self._pause = 0.0
        return answer

    def _lengthen_pause(self, began: float) -> None:
        """Double the pause, once for calls that fail together."""
        if began > self._failed_at:
            self._pause = min(MAX_PAUSE_SECONDS, max(self._timeout, self._pause * 2))
            self._failed_at = self._clock()
            self._paused_until = self._failed_at + self._pause


def _name(key: bytes) -> bytes:
    return b"assay:" + key
