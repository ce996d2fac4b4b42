"""Caches: the caches of raws that the settings ask for, and all that replicas share in Redis."""

from dataclasses import dataclass

from assay.cache.balances import RedisBalances
from assay.cache.flights import SharedFlights
from assay.cache.locks import ALIVE_SECONDS, RedisLocks
from assay.cache.memory import MemoryCache, ScoreCache
from assay.cache.redis import RedisCache
from assay.cache.redis_client import RedisClient
from assay.cache.redis_state import RedisState
from assay.cache.tiered import TieredCache
from assay.errors import SettingsError
from assay.metrics import FlightSeries, Metrics
from assay.settings import Settings
from assay.types import Clock


@dataclass(frozen=True, slots=True)
class Caches:
    """The caches of a process. What is shared with other replicas is None without Redis."""

    scores: ScoreCache
    redis: RedisCache | None = None
    redis_state: RedisState | None = None
    flights: SharedFlights | None = None
    balances: RedisBalances | None = None

    def start(self) -> None:
        """Connect to Redis in the background. Call once, inside the event loop."""
        if self.redis is not None:
            self.redis.start()

    async def close(self) -> None:
        """Finish pending writes and release connections."""
        if self.flights is not None:
            await self.flights.close()
        if self.balances is not None:
            self.balances.close()
        await self.scores.close()


def create_caches(settings: Settings, metrics: Metrics, clock: Clock) -> Caches:
    """Return the caches that the settings ask for.

    Raises:
        SettingsError: the URL of Redis is malformed.
    """
    memory = MemoryCache(settings.cache_bytes, metrics) if settings.cache_bytes else None
    client = _connect(settings, metrics, clock)
    if client is None:
        return Caches(TieredCache([]) if memory is None else memory)
    redis = RedisCache(client, ttl=settings.redis_ttl, metrics=metrics)
    scores = redis if memory is None else TieredCache([memory, redis])
    flights = None
    if settings.redis_wait:
        locks = RedisLocks(client, redis, seconds=settings.redis_wait + ALIVE_SECONDS)
        flights = SharedFlights(
            client,
            locks,
            max_wait=settings.redis_wait,
            series=FlightSeries(metrics),
            memory=memory,
        )
    return Caches(scores, redis, client.state, flights, RedisBalances(client))


def _connect(settings: Settings, metrics: Metrics, clock: Clock) -> RedisClient | None:
    if settings.redis_url is None:
        return None
    secret = settings.redis_secret
    try:
        return RedisClient(
            settings.redis_url.get_secret_value(),
            timeout=settings.redis_timeout,
            metrics=metrics,
            clock=clock,
            secret=b"" if secret is None else secret.get_secret_value().encode(),
        )
    except ValueError as error:
        raise SettingsError(f"ASSAY_REDIS_URL: {error}") from None
