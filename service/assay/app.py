"""The composition root: `create_app(settings)`, and the start and shutdown of the process."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware

from assay import __version__
from assay.api import dashboard, openapi, ops, runs, v1
from assay.api.components import Components
from assay.api.dialects.routers import ROUTERS
from assay.api.errors import install_handlers
from assay.api.hot_routes import HotRoutes
from assay.api.jobs import Jobs
from assay.api.middleware import AccessMiddleware, UnfinishedBodies
from assay.api.paths import TolerantPaths
from assay.batching.batcher import BatchLimits
from assay.cache.memory import MemoryCache, ScoreCache
from assay.cache.redis import RedisCache
from assay.cache.tiered import TieredCache
from assay.errors import SettingsError
from assay.event_loop import EventLoopMonitor
from assay.metrics import Metrics
from assay.runs.evaluator import RunEvaluator
from assay.runs.gauges import RunGauges
from assay.runs.monitor import RunMonitor
from assay.runs.subscribers import Subscribers
from assay.runs.webhook import Webhook, decode_secret, parse_webhook_url
from assay.scoring.prepare import Preparer
from assay.scoring.prepared_cache import PreparedCache
from assay.scoring.service import ScoringLimits, ScoringService
from assay.served_model import ServedModel
from assay.settings import Settings
from assay_models.card import CardError, Limits
from assay_models.registry import Runtime
from assay_models.repository import (
    ModelNotFound,
    ModelRepository,
    RepositoryEntry,
    card_folders,
    embedded_root,
)

logger = logging.getLogger(__name__)

CLOCK = time.monotonic
# On a CPU larger batches are no faster, and make the next one wait longer.
CPU_BATCH_TOKENS = 4096
# Asynchronous jobs: concurrent ones, seconds for which a result can be fetched, results kept.
MAX_RUNNING_JOBS, JOB_RESULT_SECONDS, MAX_JOB_RESULTS = 16_384, 900.0, 65_536
# Metrics are at /metrics. The framework's own telemetry would look up a provider each time.
NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}

DESCRIPTION = """Rewards for RL training and ranking for inference, over HTTP.

A score equals what plain Transformers computes for the same weights. An item that cannot be scored
carries an error, never a number."""


@dataclass(frozen=True, slots=True)
class _Process:
    """The parts that start and stop with the process."""

    settings: Settings
    repository: ModelRepository
    components: Components
    bodies: UnfinishedBodies
    cache: ScoreCache
    redis: RedisCache | None
    pool: ThreadPoolExecutor
    webhook: Webhook | None
    loop_monitor: EventLoopMonitor
    on_death: Callable[[str], None]


def create_app(settings: Settings, on_death: Callable[[str], None] = logger.critical) -> FastAPI:
    """Build the service for these settings, for any ASGI server to run.

    Args:
        settings: the models to serve, and the bounds to serve them within.
        on_death: called in the event loop, with the reason, when a model that was ready can no
            longer compute, or when no model at all could be loaded. Only a new process recovers
            from it; until then /readyz reports it.

    Raises:
        SettingsError: a requested model does not exist, or a card cannot be used.
    """
    process = _compose(settings, on_death)
    app = FastAPIOffline(
        title="Assay",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        telemetry=NO_TELEMETRY,
        lifespan=_lifespan(process),
        redirect_slashes=False,
    )
    app.router.default = TolerantPaths(app.router)
    app.state.components = process.components
    app.state.max_items = settings.max_items
    routers = (v1.router, runs.router, *ROUTERS)
    for router in (*routers, ops.router, dashboard.router):
        app.include_router(router)
    openapi.add_examples(app)
    install_handlers(app)
    hot = [route for router in routers for route in router.routes]
    app.add_middleware(HotRoutes, routes=hot, max_items=settings.max_items)
    app.add_middleware(
        AccessMiddleware,
        keys=[key.get_secret_value() for key in settings.api_keys],
        public_paths=_public_paths(settings),
        max_body_bytes=settings.max_body_bytes,
        metrics=process.components.metrics,
        root_path=settings.root_path,
        bodies=process.bodies,
    )
    if settings.cors_origins:  # outermost: a preflight has no key, and errors are readable too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE", "PATCH"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    return app


def _public_paths(settings: Settings) -> frozenset[str]:
    """Return the paths that need no key: the pages, and the probes unless they are keyed."""
    pages = dashboard.public_paths() | openapi.public_paths()
    return pages | ops.PROBE_PATHS if settings.probes == "open" else pages


def _compose(settings: Settings, on_death: Callable[[str], None]) -> _Process:
    metrics = Metrics(CollectorRegistry())
    repository = open_repository(settings)
    models = _create_models(settings, repository, metrics, on_death)
    redis = _connect_redis(settings, metrics)
    cache = _create_cache(settings, metrics, redis)
    pool = ThreadPoolExecutor(settings.prepare_threads, thread_name_prefix="prepare")
    webhook = _create_webhook(settings, metrics)
    monitor = _create_run_monitor(settings, metrics, webhook)
    service = ScoringService(
        models=models,
        cache=cache,
        preparer=Preparer(PreparedCache(settings.prepared_bytes, metrics), pool),
        metrics=metrics,
        limits=ScoringLimits(settings.max_items, settings.max_request_tokens, settings.timeout),
        clock=CLOCK,
        monitor=monitor,
    )
    bodies = UnfinishedBodies()
    components = Components(
        service=service,
        metrics=metrics,
        runs=monitor,
        subscribers=Subscribers(monitor),
        jobs=Jobs(
            max_running=MAX_RUNNING_JOBS,
            result_seconds=JOB_RESULT_SECONDS,
            max_results=MAX_JOB_RESULTS,
            clock=CLOCK,
        ),
        abort=partial(_stop, service.models(), 0.0),
        end_bodies=bodies.end,
        redis=None if redis is None else redis.state,
    )
    return _Process(
        settings=settings,
        repository=repository,
        components=components,
        bodies=bodies,
        cache=cache,
        redis=redis,
        pool=pool,
        webhook=webhook,
        loop_monitor=EventLoopMonitor(metrics),
        on_death=on_death,
    )


def open_repository(settings: Settings) -> ModelRepository:
    """Return the repository of the embedded cards and of the cards in the configured folders.

    Raises:
        SettingsError: a folder does not exist or holds no card, or a card is malformed.
    """
    for root in settings.repository:
        _check_has_cards(root)
    try:
        return ModelRepository([embedded_root(), *settings.repository])
    except CardError as error:
        raise SettingsError(str(error)) from error


def _check_has_cards(root: Path) -> None:
    if card_folders(root):
        return
    problem = "holds no NAME/VERSION/card.toml" if root.is_dir() else "does not exist"
    raise SettingsError(
        f"ASSAY_REPOSITORY: the folder {root} {problem}",
        hint="name a folder that holds NAME/VERSION/card.toml for each of your models",
    )


def select_entries(settings: Settings, repository: ModelRepository) -> list[RepositoryEntry]:
    """Return the models to serve: those named, or all embedded ones and all of the user's own.

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


def _create_models(
    settings: Settings,
    repository: ModelRepository,
    metrics: Metrics,
    on_death: Callable[[str], None],
) -> dict[str, ServedModel]:
    """Return the models by id, and the highest version of each also by bare name."""
    served: dict[str, ServedModel] = {}
    entries = select_entries(settings, repository)
    try:
        for entry in sorted(entries, key=lambda entry: entry.card.version):
            limits = _batch_limits(settings, entry.card.limits)
            model = ServedModel(
                entry=entry, limits=limits, metrics=metrics, clock=CLOCK, on_death=on_death
            )
            served[entry.card.id] = served[entry.card.name] = model
    except CardError as error:
        raise SettingsError(str(error)) from error
    if not served:
        raise SettingsError("no model to serve", hint="set ASSAY_MODELS or ASSAY_REPOSITORY")
    return served


def _batch_limits(settings: Settings, card: Limits) -> BatchLimits:
    maximum = card.max_batch_tokens
    wanted = settings.batch_tokens or (CPU_BATCH_TOKENS if settings.device == "cpu" else maximum)
    return BatchLimits(min(wanted, maximum), card.max_batch_size, settings.max_queue_tokens)


def _connect_redis(settings: Settings, metrics: Metrics) -> RedisCache | None:
    if settings.redis_url is None:
        return None
    url = settings.redis_url.get_secret_value()
    ttl, timeout = settings.redis_ttl, settings.redis_timeout
    try:
        return RedisCache(url, ttl=ttl, timeout=timeout, metrics=metrics, clock=CLOCK)
    except ValueError as error:
        raise SettingsError(f"ASSAY_REDIS_URL: {error}") from None


def _create_cache(settings: Settings, metrics: Metrics, redis: RedisCache | None) -> ScoreCache:
    memory = MemoryCache(settings.cache_bytes, metrics) if settings.cache_bytes else None
    tiers = [tier for tier in (memory, redis) if tier is not None]
    return tiers[0] if len(tiers) == 1 else TieredCache(tiers)


def _create_webhook(settings: Settings, metrics: Metrics) -> Webhook | None:
    url, secret = settings.alert_url, settings.alert_secret
    if url is None:
        if secret is not None:
            raise SettingsError("ASSAY_ALERT_SECRET without ASSAY_ALERT_URL", hint="set both")
        return None
    if settings.runs == "off":
        raise SettingsError("ASSAY_ALERT_URL with ASSAY_RUNS=off: there is nothing to alert of")
    try:
        address = parse_webhook_url(url.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"ASSAY_ALERT_URL: {error}") from None
    try:
        key = None if secret is None else decode_secret(secret.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"ASSAY_ALERT_SECRET: {error}") from None
    return Webhook(address, key=key, series=metrics.alerts, clock=time.time)


def _create_run_monitor(
    settings: Settings, metrics: Metrics, webhook: Webhook | None
) -> RunMonitor:
    if settings.runs == "off":
        return RunMonitor(None, metrics, CLOCK, enabled=False)
    evaluator = RunEvaluator(
        gauges=RunGauges(metrics.runs),
        notify=webhook.send if webhook else None,
        interval=settings.evaluation_seconds,
        clock=CLOCK,
        series=metrics.runs,
    )
    return RunMonitor(settings.runs, metrics, CLOCK, evaluator=evaluator)


def _lifespan(process: _Process) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        freezing = await _start(process)
        try:
            yield
        finally:
            freezing.cancel()
            await _shut_down(process)

    return lifespan


async def _start(process: _Process) -> asyncio.Task[None]:
    """Start every part; models load in the background. Return the task that waits for them."""
    process.loop_monitor.start()
    if process.webhook is not None:
        process.webhook.start()
    if process.redis is not None:
        process.redis.start()
    await process.components.runs.open()
    settings = process.settings
    runtime = Runtime(settings.device, settings.dtype, settings.deterministic)
    models, load_lock = process.components.service.models(), asyncio.Lock()
    for served in models:
        served.start(process.repository, runtime, load_lock)
    freezing = asyncio.create_task(_freeze_when_loaded(models, process.on_death))
    await asyncio.sleep(0)  # so that the task is waiting before requests arrive
    return freezing


async def _shut_down(process: _Process) -> None:
    """Finish the admitted requests, then stop every part."""
    components = process.components
    components.subscribers.close()
    timeout = 0.0 if components.shutdown.is_forced else process.settings.drain_timeout
    await _stop(components.service.models(), timeout)
    await components.jobs.close()
    await components.runs.close()
    if process.webhook is not None:
        await asyncio.to_thread(process.webhook.close)
    await process.cache.close()
    process.pool.shutdown(wait=False, cancel_futures=True)
    process.loop_monitor.stop()


async def _freeze_when_loaded(
    models: Sequence[ServedModel], on_death: Callable[[str], None]
) -> None:
    """Exempt libraries and models from garbage collection once all models are loaded.

    Scanning them in each full collection would block the event loop.
    """
    ready = [await served.loaded() for served in models]
    gc.freeze()
    if not any(ready):
        reasons = dict.fromkeys(served.failure or "stopped" for served in models)
        on_death(f"no model could be loaded: {'; '.join(reasons)}")


async def _stop(models: Sequence[ServedModel], timeout: float) -> None:
    await asyncio.gather(*(served.close(timeout) for served in models))
