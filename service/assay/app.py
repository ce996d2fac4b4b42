"""create_app(settings): the composition root, and what starts and stops with the process."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry

from assay import __version__
from assay.api import charts, ops, page, runs, v1
from assay.api.dialects import ROUTERS
from assay.api.errors import install_handlers
from assay.api.guard import Guard, direct_routes
from assay.batching import BatchLimits
from assay.cache import MemoryCache, PreparedCache, RedisCache, ScoreCache, TieredCache
from assay.errors import SettingsError
from assay.following import Followers
from assay.gauges import RunGauges
from assay.hosting import ServedModel
from assay.jobs import Jobs
from assay.metrics import Metrics
from assay.runs import RunMonitor
from assay.scoring import ScoringLimits, ScoringService
from assay.settings import Settings
from assay.watching import RunWatcher
from assay.webhook import Webhook, checked_url, secret_key
from assay_models.card import CardError, Limits
from assay_models.registry import Runtime
from assay_models.repository import Entry, ModelNotFound, ModelRepository, embedded_root

logger = logging.getLogger(__name__)

CLOCK = time.monotonic
# A CPU is as fast with this much at a time as with more, and the next in line waits less.
CPU_BATCH_TOKENS = 4096
# Jobs that run at a time; seconds for which their outcomes can be fetched, and how many are kept.
JOBS, JOB_SECONDS, JOB_OUTCOMES = 16_384, 900.0, 65_536
# What there is to watch is at /metrics. The framework's own would look for a provider each time.
NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}

DESCRIPTION = """Rewards for RL training and ranking for inference, over HTTP.

A score equals what plain Transformers computes for the same weights. An item that cannot be scored
carries an error, never a number."""


def create_app(settings: Settings, on_death: Callable[[str], None] = logger.critical) -> FastAPI:
    """The service for these settings, for any ASGI server to run.

    Args:
        settings: what to serve.
        on_death: told, in the event loop, when a model that was ready can compute no more. It does
            not come back: only a new process does, and /readyz says so from then on.

    Raises:
        SettingsError: the models asked for do not exist, or a card cannot be used.
    """
    metrics = Metrics(CollectorRegistry())
    repository = open_repository(settings)
    models = _served(settings, repository, metrics, on_death)
    cache = _cache(settings, metrics)
    pool = ThreadPoolExecutor(settings.prepare_threads, thread_name_prefix="prepare")
    limits = ScoringLimits(settings.max_items, settings.max_request_tokens, settings.timeout)
    prepared = PreparedCache(settings.prepared_bytes, metrics)
    webhook = _webhook(settings, metrics)
    monitor = _run_monitor(settings, metrics, webhook)
    service = ScoringService(models, cache, prepared, pool, metrics, limits, CLOCK, monitor)
    jobs: Jobs[Any] = Jobs(JOBS, JOB_SECONDS, JOB_OUTCOMES, CLOCK)
    app = FastAPIOffline(
        title="Assay",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        telemetry=NO_TELEMETRY,
        lifespan=_lifespan(settings, repository, service, cache, pool, jobs, monitor, webhook),
    )
    app.state.jobs = jobs
    app.state.metrics = metrics
    app.state.runs = monitor
    app.state.followers = Followers(monitor)
    app.state.page = page.page_files()
    app.state.service = service
    app.state.cut_off = partial(_stop, service.models(), 0.0)
    routers = (v1.router, charts.router, runs.router, *ROUTERS)
    for router in (*routers, ops.router, page.router):
        app.include_router(router)
    install_handlers(app)
    keys = [key.get_secret_value() for key in settings.api_keys]
    app.add_middleware(
        Guard,
        routes=direct_routes([route for router in routers for route in router.routes]),
        keys=keys,
        keyless=page.page_paths(app.state.page),
        max_body_bytes=settings.max_body_bytes,
        metrics=metrics,
    )
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
    settings: Settings,
    repository: ModelRepository,
    metrics: Metrics,
    on_death: Callable[[str], None],
) -> dict[str, ServedModel]:
    """The models by id, and the highest version of each also by bare name."""
    served: dict[str, ServedModel] = {}
    entries = chosen_entries(settings, repository)
    try:
        for entry in sorted(entries, key=lambda entry: entry.card.version):
            limits = _limits(settings, entry.card.limits)
            model = ServedModel(entry, limits, metrics, CLOCK, on_death)
            served[entry.card.id] = served[entry.card.name] = model
    except CardError as error:
        raise SettingsError(str(error)) from error
    if not served:
        raise SettingsError("no model to serve", hint="set ASSAY_MODELS or ASSAY_REPOSITORY")
    return served


def _limits(settings: Settings, card: Limits) -> BatchLimits:
    most = card.max_batch_tokens
    wanted = settings.batch_tokens or (CPU_BATCH_TOKENS if settings.device == "cpu" else most)
    return BatchLimits(min(wanted, most), card.max_batch_size, settings.max_queue_tokens)


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


def _webhook(settings: Settings, metrics: Metrics) -> Webhook | None:
    url, secret = settings.alert_url, settings.alert_secret
    if url is None:
        if secret is not None:
            raise SettingsError("ASSAY_ALERT_SECRET without ASSAY_ALERT_URL", hint="set both")
        return None
    if settings.runs == "off":
        raise SettingsError("ASSAY_ALERT_URL with ASSAY_RUNS=off: there is nothing to alert of")
    try:
        address = checked_url(url.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"ASSAY_ALERT_URL: {error}") from None
    try:
        key = None if secret is None else secret_key(secret.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"ASSAY_ALERT_SECRET: {error}") from None
    return Webhook(address, key, metrics.alerts, time.time)


def _run_monitor(settings: Settings, metrics: Metrics, webhook: Webhook | None) -> RunMonitor:
    if settings.runs == "off":
        return RunMonitor(None, metrics, CLOCK, enabled=False)
    gauges, tell = RunGauges(metrics.runs), webhook.send if webhook else None
    watcher = RunWatcher(gauges, tell, settings.watch_seconds, CLOCK, metrics.runs)
    return RunMonitor(settings.runs, metrics, CLOCK, watcher=watcher)


def _lifespan(
    settings: Settings,
    repository: ModelRepository,
    service: ScoringService,
    cache: TieredCache,
    pool: ThreadPoolExecutor,
    jobs: Jobs[Any],
    monitor: RunMonitor,
    webhook: Webhook | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        models, turn = service.models(), asyncio.Lock()
        if webhook is not None:
            webhook.start()
        await monitor.open()
        runtime = Runtime(settings.device, settings.dtype, settings.deterministic)
        for served in models:
            served.start(repository, runtime, turn)
        settling = asyncio.create_task(_settle(models))
        await asyncio.sleep(0)  # it is the first to hear that a model is loaded
        try:
            yield
        finally:
            app.state.followers.close()
            settling.cancel()
            await _stop(models, settings.drain_timeout)
            await jobs.close()
            await monitor.close()
            if webhook is not None:
                await asyncio.to_thread(webhook.close)
            await cache.close()
            pool.shutdown(wait=False, cancel_futures=True)

    return lifespan


async def _settle(models: Sequence[ServedModel]) -> None:
    """When all is loaded, spare the garbage collector what stays as long as the process does: to
    look through the libraries and models again and again would stop the event loop each time.
    """
    for served in models:
        await served.loaded()
    gc.freeze()


async def _stop(models: Sequence[ServedModel], timeout: float) -> None:
    await asyncio.gather(*(served.close(timeout) for served in models))
