"""create_app(settings): the composition root, and what starts and stops with the process."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry

from assay import __version__
from assay.api import ops, v1
from assay.api.errors import install_handlers
from assay.api.guard import Guard
from assay.cache import MemoryCache, RedisCache, ScoreCache, TieredCache
from assay.errors import SettingsError
from assay.hosting import ServedModel
from assay.metrics import Metrics
from assay.scoring import ScoringLimits, ScoringService
from assay.settings import Settings
from assay_models.card import CardError
from assay_models.registry import Runtime
from assay_models.repository import Entry, ModelNotFound, ModelRepository, embedded_root

CLOCK = time.monotonic

DESCRIPTION = """Rewards for RL training and ranking for inference, over HTTP.

A score equals what plain Transformers computes for the same weights. An item that cannot be scored
carries an error, never a number."""


def create_app(settings: Settings) -> FastAPI:
    """The service for these settings, for any ASGI server to run.

    Raises:
        SettingsError: the models asked for do not exist, or a card cannot be used.
    """
    metrics = Metrics(CollectorRegistry())
    repository = open_repository(settings)
    models = _served(settings, repository, metrics)
    cache = _cache(settings, metrics)
    pool = ThreadPoolExecutor(settings.prepare_threads, thread_name_prefix="prepare")
    limits = ScoringLimits(settings.max_items, settings.max_request_tokens, settings.timeout)
    service = ScoringService(models, cache, pool, metrics, limits, CLOCK)
    app = FastAPIOffline(
        title="Assay",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=_lifespan(settings, repository, service, cache, pool),
    )
    app.state.metrics = metrics
    app.state.service = service
    app.include_router(v1.router)
    app.include_router(ops.router)
    install_handlers(app)
    keys = [key.get_secret_value() for key in settings.api_keys]
    app.add_middleware(Guard, keys=keys, max_body_bytes=settings.max_body_bytes, metrics=metrics)
    return app


def open_repository(settings: Settings) -> ModelRepository:
    """The embedded cards and those of the settings' own folders.

    Raises:
        SettingsError: a card is malformed.
    """
    try:
        return ModelRepository([embedded_root(), *settings.repository])
    except CardError as error:
        raise SettingsError(str(error)) from error


def chosen_entries(settings: Settings, repository: ModelRepository) -> list[Entry]:
    """What to serve: the models named, or all embedded ones and all of the user's own folders.

    Raises:
        SettingsError: a name is not in the repository.
    """
    try:
        if settings.models:
            return [repository.find(name) for name in settings.models]
    except ModelNotFound as error:
        raise SettingsError(f"ASSAY_MODELS: {error}") from error
    own = [folder.resolve() for folder in settings.repository]
    entries = [repository.find(card.id) for card in repository.cards()]
    return [
        entry
        for entry in entries
        if entry.card.embedded or any(entry.folder.resolve().is_relative_to(root) for root in own)
    ]


def _served(
    settings: Settings, repository: ModelRepository, metrics: Metrics
) -> dict[str, ServedModel]:
    """The models by id, and the highest version of each also by bare name."""
    served: dict[str, ServedModel] = {}
    entries = chosen_entries(settings, repository)
    try:
        for entry in sorted(entries, key=lambda entry: entry.card.version):
            model = ServedModel(entry, settings.max_queue_tokens, metrics, CLOCK)
            served[entry.card.id] = served[entry.card.name] = model
    except CardError as error:
        raise SettingsError(str(error)) from error
    if not served:
        raise SettingsError("no model to serve", hint="set ASSAY_MODELS or ASSAY_REPOSITORY")
    return served


def _cache(settings: Settings, metrics: Metrics) -> TieredCache:
    tiers: list[ScoreCache] = []
    if settings.cache_bytes:
        tiers.append(MemoryCache(settings.cache_bytes, metrics))
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
        ttl, timeout = settings.redis_ttl, settings.redis_timeout
        try:
            tiers.append(RedisCache(url, ttl, timeout, metrics, CLOCK))
        except ValueError as error:
            raise SettingsError(f"ASSAY_REDIS_URL: {error}") from None
    return TieredCache(tiers)


def _lifespan(
    settings: Settings,
    repository: ModelRepository,
    service: ScoringService,
    cache: TieredCache,
    pool: ThreadPoolExecutor,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        models, turn = service.models(), asyncio.Lock()
        runtime = Runtime(settings.device, settings.dtype, settings.deterministic)
        for served in models:
            served.start(repository, runtime, turn)
        try:
            yield
        finally:
            await _stop(models, settings.drain_timeout)
            await cache.close()
            pool.shutdown()

    return lifespan


async def _stop(models: Sequence[ServedModel], timeout: float) -> None:
    await asyncio.gather(*(served.close(timeout) for served in models))
