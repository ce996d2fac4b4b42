"""ScoreCache: raws by key, in memory and in Redis. A dead, slow or lying Redis means slower, never
wrong and never down.
"""

import asyncio
import hashlib
import math
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from assay.metrics import Metrics
from assay_models.base import Raw

T = TypeVar("T")

SCHEMA = b"assay-raw-1"
ENTRY_OVERHEAD = 320
MAX_REST = 30.0
MAX_WRITES = 256


def cache_key(fingerprint: str, input_key: bytes) -> bytes:
    """The key of one raw: schema, the model's fingerprint and the canonical input, each with its
    length, hashed. No header, no id, no run.
    """
    digest = hashlib.blake2b(digest_size=32)
    for part in (SCHEMA, fingerprint.encode(), input_key):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


class ScoreCache(Protocol):
    """A store of raws. Neither method raises: what goes wrong inside is a miss, and counted."""

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """The raws that are known, in one round trip."""
        ...

    async def put_many(self, raws: Mapping[bytes, Raw]) -> None:
        """Keep raws. May return before they are stored."""
        ...

    async def close(self) -> None:
        """Finish what is being stored, and let go."""
        ...


class MemoryCache:
    """The most recently used raws, within a bound in bytes."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._raws: OrderedDict[bytes, Raw] = OrderedDict()
        self._metrics = metrics

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """The raws that are known; each becomes the most recently used."""
        found = {key: self._raws[key] for key in keys if key in self._raws}
        for key in found:
            self._raws.move_to_end(key)
        _count(self._metrics, "memory", hits=len(found), misses=len(keys) - len(found))
        return found

    async def put_many(self, raws: Mapping[bytes, Raw]) -> None:
        """Keep raws, and forget the least recently used ones beyond the bound."""
        for key, raw in raws.items():
            known = self._raws.pop(key, None)
            self._bytes += _size(raw) - (_size(known) if known is not None else 0)
            self._raws[key] = raw
        while self._bytes > self._max_bytes:
            _, forgotten = self._raws.popitem(last=False)
            self._bytes -= _size(forgotten)
        self._metrics.cache_bytes.set(self._bytes)

    async def close(self) -> None:
        """Nothing to let go."""


class RedisCache:
    """Raws shared between processes through Redis.

    Each call is bounded by `timeout` seconds. After a failure Redis is left alone for a while that
    doubles up to half a minute, so that a hung server costs one timeout now and then and not one a
    request. A value carries a checksum keyed by its own key: an answer to another question, or
    garbage, is a miss.
    """

    def __init__(
        self,
        url: str,
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
        self._metrics = metrics
        self._clock = clock
        self._rest = 0.0
        self._rest_until = -math.inf
        self._writes: set[asyncio.Task[object]] = set()

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """The raws that are known and intact, by one MGET."""
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
        found = {key: raw for key, raw in decoded.items() if raw is not None}
        damaged = len(decoded) - len(found)
        misses = len(keys) - len(decoded)
        _count(self._metrics, "redis", hits=len(found), misses=misses, errors=damaged)
        return found

    async def put_many(self, raws: Mapping[bytes, Raw]) -> None:
        """Keep raws, without making the caller wait; dropped when too many writes are under way."""
        if raws and len(self._writes) < MAX_WRITES:
            write = asyncio.create_task(self._bounded(lambda: self._store(dict(raws)), 0))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)

    async def close(self) -> None:
        """Wait for the writes under way (each is bounded), then disconnect."""
        if self._writes:
            await asyncio.wait(self._writes)
        await self._redis.aclose()

    async def _store(self, raws: Mapping[bytes, Raw]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, raw in raws.items():
                pipe.set(_name(key), encode(key, raw), ex=self._ttl)
            await pipe.execute()

    async def _bounded(self, call: Callable[[], Awaitable[T]], keys: int) -> T | None:
        if self._clock() < self._rest_until:
            _count(self._metrics, "redis", errors=keys)
            return None
        try:
            async with asyncio.timeout(self._timeout):
                answer = await call()
        except Exception:  # noqa: BLE001 a lying server can make its client raise anything; a miss is always right
            self._rest = min(MAX_REST, max(self._timeout, self._rest * 2))
            self._rest_until = self._clock() + self._rest
            _count(self._metrics, "redis", errors=max(1, keys))
            return None
        self._rest = 0.0
        return answer


class TieredCache:
    """Several caches, fastest first; what a slower one knows is kept in the faster ones."""

    def __init__(self, tiers: Sequence[ScoreCache]) -> None:
        self._tiers = tuple(tiers)

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """The raws that any tier knows; each tier is asked once, for what is still missing."""
        found: dict[bytes, Raw] = {}
        for level, tier in enumerate(self._tiers):
            missing = [key for key in keys if key not in found]
            if not missing:
                break
            known = await tier.get_many(missing)
            for faster in self._tiers[:level]:
                await faster.put_many(known)
            found.update(known)
        return found

    async def put_many(self, raws: Mapping[bytes, Raw]) -> None:
        """Keep raws in every tier."""
        for tier in self._tiers:
            await tier.put_many(raws)

    async def close(self) -> None:
        """Close every tier."""
        for tier in self._tiers:
            await tier.close()


def encode(key: bytes, raw: Raw) -> bytes:
    """A raw as bytes: a checksum keyed by `key`, then the numbers as big-endian doubles."""
    numbers = struct.pack(f">{len(raw)}d", *raw)
    return _checksum(key, numbers) + numbers


def decode(key: bytes, value: object) -> Raw | None:
    """The raw that `encode` wrote under this very key; None for anything else."""
    if not isinstance(value, bytes) or len(value) < 16 or len(value) % 8:
        return None
    checksum, numbers = value[:8], value[8:]
    if checksum != _checksum(key, numbers):
        return None
    return struct.unpack(f">{len(numbers) // 8}d", numbers)


def _checksum(key: bytes, numbers: bytes) -> bytes:
    return hashlib.blake2b(numbers, digest_size=8, key=key).digest()


def _name(key: bytes) -> bytes:
    return b"assay:" + key


def _size(raw: Raw) -> int:
    return ENTRY_OVERHEAD + 32 * len(raw)


def _count(metrics: Metrics, tier: str, hits: int = 0, misses: int = 0, errors: int = 0) -> None:
    for outcome, amount in (("hit", hits), ("miss", misses), ("error", errors)):
        if amount:
            metrics.cache_lookups.labels(tier, outcome).inc(amount)
