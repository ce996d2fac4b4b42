"""Parts of the server that share a Redis, for tests."""

import time
from collections.abc import Callable
from typing import Any

from redis import Redis

from assay.cache.locks import RedisLocks
from assay.cache.redis import RedisCache
from assay.cache.redis_client import PREFIX, RedisClient
from assay.metrics import Metrics

from .doubles import new_metrics

KEY_BYTES = 32


def new_client(
    url: str,
    *,
    timeout: float = 5.0,
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.monotonic,
    secret: bytes = b"",
) -> RedisClient:
    """Return a client of a Redis."""
    metrics = metrics or new_metrics()
    return RedisClient(url, timeout=timeout, metrics=metrics, clock=clock, secret=secret)


def new_redis_cache(
    url: str, *, metrics: Metrics | None = None, timeout: float = 5.0, **options: Any
) -> RedisCache:
    """Return a cache with a client of its own."""
    metrics = metrics or new_metrics()
    client = new_client(url, metrics=metrics, timeout=timeout, **options)
    return RedisCache(client, ttl=60, metrics=metrics)


class ClosableLocks(RedisLocks):
    """Locks with a client of their own."""

    def __init__(self, url: str) -> None:
        cache = new_redis_cache(url)
        super().__init__(cache.client, cache, seconds=60.0)
        self.close = cache.close


def new_locks(url: str) -> ClosableLocks:
    """Return the locks of one more replica."""
    return ClosableLocks(url)


def raw_names(client: Redis) -> list[bytes]:
    """Return the names of the stored raws, without those of locks and replicas."""
    names = client.keys("assay:*")
    assert isinstance(names, list)
    return [name for name in map(as_bytes, names) if len(name) == len(PREFIX) + KEY_BYTES]


def as_bytes(reply: object) -> bytes:
    """Return a key or a value, which the client does not decode."""
    assert isinstance(reply, bytes)
    return reply
