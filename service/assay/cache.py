"""ScoreCache: raws by key, in memory and in Redis. A dead, slow or lying Redis means slower, never
wrong and never down. PreparedCache: what `prepare` made of items, in memory.
"""

import asyncio
import hashlib
import math
import struct
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain
from typing import Any, Protocol, TypeVar, cast

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from assay.metrics import Metrics
from assay_models.base import Prepared, Raw

T = TypeVar("T")

SCHEMA = b"assay-raw-1"
ENTRY_OVERHEAD = 320
MAX_REST = 30.0
MAX_WRITES = 256
NAMES = frozenset(("id", "group"))
# A value of another kind than JSON's could be written like one of them and mean something else.
PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
STRICT = PLAIN | orjson.OPT_PASSTHROUGH_SUBCLASS


@dataclass(frozen=True, slots=True)
class Ready:
    """Items as `prepare` left them: the keys of their inputs, in order, the inputs' tokens, and
    the bytes that it costs to remember them.
    """

    prepared: Prepared
    keys: tuple[bytes, ...]
    tokens: int
    size: int


def cache_key(fingerprint: str, input_key: bytes) -> bytes:
    """The key of one raw: schema, the model's fingerprint and the canonical input, each with its
    length, hashed. No header, no id, no run.
    """
    digest = hashlib.blake2b(digest_size=32)
    for part in (SCHEMA, fingerprint.encode(), input_key):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def make_ready(fingerprint: str, prepared: Prepared) -> Ready:
    """What was prepared, with all that is known of it before its raws are.

    Args:
        fingerprint: the model's.
        prepared: by that model.
    """
    keys = tuple([cache_key(fingerprint, one.key) for one in prepared.inputs])
    tokens = sum([one.tokens for one in prepared.inputs])
    return Ready(prepared, keys, tokens, ENTRY_OVERHEAD + _footprint((prepared, keys)))


def digest_of(scope: bytes, items: Sequence[Mapping[str, Any]]) -> bytes | None:
    """What items are remembered by: their fields but for `id` and `group`, hashed; None for fields
    that JSON cannot say.

    Args:
        scope: all else that `prepare` depends on.
        items: the wire's fields of those that are prepared together.
    """
    bare = [{name: one[name] for name in one if name not in NAMES} for one in items]
    try:
        text = orjson.dumps(bare, option=STRICT)
    except TypeError:
        return None
    return hashlib.blake2b(len(scope).to_bytes(8, "big") + scope + text, digest_size=32).digest()


class PreparedCache:
    """What `prepare` made of items: the most recently used, within a bound in bytes.

    `prepare` is pure: whoever sends the same fields again, under the same options, need not wait
    for templates and tokens. The keys are digests, so that no text is kept for its own sake.
    """

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._ready: OrderedDict[bytes, Ready] = OrderedDict()
        self._size = metrics.prepared_bytes

    @property
    def enabled(self) -> bool:
        """Whether anything is ever remembered."""
        return self._max_bytes > 0

    def get(self, digest: bytes) -> Ready | None:
        """What is remembered; it becomes the most recently used."""
        ready = self._ready.get(digest)
        if ready is not None:
            self._ready.move_to_end(digest)
        return ready

    def put(self, digest: bytes, ready: Ready) -> None:
        """Remember, and forget the least recently used beyond the bound."""
        if ready.size > self._max_bytes:
            return
        known = self._ready.pop(digest, None)
        self._bytes += ready.size - (known.size if known is not None else 0)
        self._ready[digest] = ready
        while self._bytes > self._max_bytes:
            _, forgotten = self._ready.popitem(last=False)
            self._bytes -= forgotten.size
        self._size.set(self._bytes)


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
        self._count = _lookups(metrics, "memory")
        self._size = metrics.cache_bytes

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Raw]:
        """The raws that are known; each becomes the most recently used."""
        found = {key: self._raws[key] for key in keys if key in self._raws}
        for key in found:
            self._raws.move_to_end(key)
        self._count(len(found), len(keys) - len(found), 0)
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
        self._size.set(self._bytes)

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
        self._count = _lookups(metrics, "redis")
        self._clock = clock
        self._rest = 0.0
        self._rest_until = self._failed_at = -math.inf
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
        self._count(len(found), misses, damaged)
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
            self._count(0, 0, keys)
            return None
        began = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await call()
        except Exception:  # noqa: BLE001 a lying server can make its client raise anything; a miss is always right
            self._count(0, 0, max(1, keys))
            # Of calls that fail together, one makes the rest longer.
            if began > self._failed_at:
                self._rest = min(MAX_REST, max(self._timeout, self._rest * 2))
                self._failed_at = self._clock()
                self._rest_until = self._failed_at + self._rest
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


def _lookups(metrics: Metrics, tier: str) -> Callable[[int, int, int], None]:
    """Counts hits, misses and errors of a tier; its series are looked up once."""
    series = [metrics.cache_lookups.labels(tier, outcome) for outcome in ("hit", "miss", "error")]

    def count(*amounts: int) -> None:
        for one, amount in zip(series, amounts, strict=True):
            if amount:
                one.inc(amount)

    return count


def _footprint(root: object) -> int:
    """Bytes of a value and of all that it holds, each object once."""
    seen: dict[int, object] = {}
    pending = [root]
    while pending:
        one = pending.pop()
        if id(one) not in seen:
            seen[id(one)] = one
            pending.extend(_parts(one))
    return sum(map(sys.getsizeof, seen.values()))


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, str | bytes | int | float):
        return ()
    if isinstance(value, tuple | list | set | frozenset):
        return value
    if isinstance(value, Mapping):
        return chain(value.keys(), value.values())
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    return ()
