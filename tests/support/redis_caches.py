"""Parts of the server that share a Redis, for tests."""

import time
from collections.abc import Callable

from assay.cache.redis import RedisCache
from assay.cache.redis_client import RedisClient
from assay.metrics import Metrics

from .doubles import new_metrics


def new_redis_cache(
    url: str,
    *,
    timeout: float = 5.0,
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.monotonic,
    secret: bytes = b"",
) -> RedisCache:
    """Return a cache with a client of its own."""
    metrics = metrics or new_metrics()
    client = RedisClient(url, timeout=timeout, metrics=metrics, clock=clock, secret=secret)
    return RedisCache(client, ttl=60, metrics=metrics)
