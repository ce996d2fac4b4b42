"""RedisCache: raws shared between processes.

An unreachable, slow or faulty Redis makes scoring slower, never wrong and never unavailable.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import cast

from assay.cache.keys import decode, encode
from assay.cache.redis_client import CHECKSUM, PREFIX, RedisClient
from assay.metrics import Metrics, TierSeries
from assay_models.base import Raw

MAX_WRITES = 256
NAME = b"assay name"
# Two keys of different slots: a Redis Cluster refuses them together wherever it keeps them.
START_KEYS = (b"start-1", b"start-2")


class RedisCache:
    """A cache of raws in Redis, shared between processes.

    A value carries a checksum keyed by its own key: a value of another key, or a damaged one, is a
    miss.

    Args:
        client: the client of the Redis.
        ttl: seconds for which a raw stays.
        metrics: counters of lookups.
    """

    def __init__(self, client: RedisClient, *, ttl: int, metrics: Metrics) -> None:
        self.client = client
        self._ttl = ttl
        self._series = TierSeries(metrics, "redis")
        self._writes = 0

    def start(self) -> None:
        """Read from Redis in the background, so that a wrong URL is seen at start."""
        self.client.run(self._try())

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """Return the raws that are stored and intact, with one MGET."""
        if not keys:
            return {}
        values = await self.client.call("reads", lambda: self._read(keys))
        if values is None:
            self._series.count(errors=len(keys))
        if not isinstance(values, list) or len(values) != len(keys):
            return {}
        decoded = {
            key: self.decode(key, value)
            for key, value in zip(keys, values, strict=True)
            if value is not None
        }
        hits = {key: raw for key, raw in decoded.items() if raw is not None}
        damaged = len(decoded) - len(hits)
        self._series.count(hits=len(hits), misses=len(keys) - len(decoded), errors=damaged)
        return hits

    async def put_many(self, raws: Mapping[bytes, Raw]) -> None:
        """Store raws without making the caller wait; drop them if too many writes are pending."""
        if raws and self._writes < MAX_WRITES:
            self._writes += 1
            self.client.run(self._write(dict(raws)))

    async def close(self) -> None:
        """Wait for the pending writes (each is bounded), then disconnect."""
        await self.client.close()

    def name(self, key: bytes) -> bytes:
        """Return the name under which the raw of a key is stored."""
        return PREFIX + self.client.derived(key, NAME)

    def decode(self, key: bytes, value: object) -> Raw | None:
        """Return the raw that a stored value has for this very key; None if it is damaged."""
        return decode(self.client.derived(key, CHECKSUM), value)

    async def _try(self) -> None:
        if await self.client.call("reads", lambda: self._read(START_KEYS)) is None:
            self._series.count(errors=1)

    async def _write(self, raws: Mapping[bytes, Raw]) -> None:
        try:
            if self.client.is_pausing("writes"):
                return
            if not await self.client.call("writes", lambda: self._store(raws)):
                self._series.count(errors=1)
        finally:
            self._writes -= 1

    def _read(self, keys: Sequence[bytes]) -> Awaitable[list[object]]:
        names = [self.name(key) for key in keys]
        return cast(Awaitable[list[object]], self.client.redis.mget(names))

    async def _store(self, raws: Mapping[bytes, Raw]) -> bool:
        async with self.client.redis.pipeline(transaction=False) as pipe:
            for key, raw in raws.items():
                value = encode(self.client.derived(key, CHECKSUM), raw)
                pipe.set(self.name(key), value, ex=self._ttl)
            await pipe.execute()
        return True
