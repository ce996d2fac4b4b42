"""The composition root: `create_app(settings)`, and the start and shutdown of the process."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware

from assay import __version__
from assay.api import dashboard, models, openapi, ops, runs, v1
from assay.api.access import Access, Refusals
from assay.api.body_budget import BodyBudget
from assay.api.components import Components
from assay.api.dialects.routers import ROUTERS
from assay.api.errors import install_handlers
from assay.api.hosts import HostCheck
from assay.api.hot_routes import HotRoutes
from assay.api.jobs import JobLimits, Jobs
from assay.api.keys import ApiKeys, share_of
from assay.api.paths import TolerantPaths
from assay.caches import Caches, create_caches
from assay.errors import SettingsError
from assay.event_loop import EventLoopMonitor
from assay.lifecycle.lifecycle import LifecycleLimits, ModelLifecycle
from assay.lifecycle.release import glibc_release
from assay.lifecycle.table import ModelTable
from assay.metrics import Metrics
from assay.runs.evaluator import RunEvaluator
from assay.runs.gauges import RunGauges
from assay.runs.handover import share_alerts
from assay.runs.monitor import RunMonitor
from assay.runs.storage import open_place
from assay.runs.subscribers import Subscribers
from assay.runs.webhook import Webhook, decode_secret, parse_webhook_url
from assay.scoring.preparation_pool import PreparationPool
from assay.scoring.prepare import Preparer
from assay.scoring.prepared_cache import PreparedCache
from assay.scoring.service import ScoringLimits
from assay.scoring.shadowing import Shadowing
from assay.selection import create_model, create_table, open_repository, select_entries
from assay.served_model import ServedModel
from assay.settings import Settings, variable_name
from assay.tracing.parts import Parts, create_parts
from assay_models.registry import Runtime
from assay_models.repository import ModelRepository

logger = logging.getLogger(__name__)

CLOCK = time.monotonic
JOB_LIMITS = JobLimits(
    max_running=32_768,
    max_bytes=268_435_456,
    idle_seconds=120.0,
    result_seconds=900.0,
    max_results=65_536,
)
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
    keys: ApiKeys | None
    caches: Caches
    pool: PreparationPool
    webhook: Webhook | None
    loop_monitor: EventLoopMonitor
    parts: Parts
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
    openapi.restrict_pages(app)
    app.router.default = TolerantPaths(app.router)
    app.state.components = process.components
    app.state.max_items = settings.max_items
    routers = (v1.router, models.router, runs.router, *ROUTERS)
    for router in (*routers, ops.router, dashboard.router):
        app.include_router(router)
    openapi.add_examples(app)
    openapi.add_document(app)
    install_handlers(app)
    hot = [route for router in routers for route in router.routes]
    app.add_middleware(HotRoutes, routes=hot, max_items=settings.max_items)
    app.add_middleware(
        process.parts.access,
        access=_create_access(settings, process),
        max_body_bytes=settings.max_body_bytes,
        metrics=process.components.metrics,
        root_path=settings.root_path,
        bodies=process.components.bodies,
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


def _check_needs_no_keys(settings: Settings) -> None:
    for name in ("key_rate", "key_concurrency", "private_cache"):
        if getattr(settings, name):
            raise SettingsError(
                f"{variable_name(name)} without API keys has no effect",
                hint="set ASSAY_API_KEYS_FILE or ASSAY_API_KEYS",
            )


def _create_access(settings: Settings, process: _Process) -> Access:
    has_keys = process.keys is not None
    hosts = HostCheck(
        settings.allowed_hosts,
        settings.cors_origins,
        is_loopback=settings.is_loopback,
        has_keys=has_keys,
    )
    refusals = Refusals(process.components.metrics, CLOCK)
    is_checked = settings.allowed_hosts or not has_keys
    return Access(process.keys, _public_paths(settings), hosts if is_checked else None, refusals)


def _public_paths(settings: Settings) -> frozenset[str]:
    """Return the paths that need no key: the pages, and the probes unless they are keyed."""
    pages = dashboard.public_paths() | openapi.public_paths()
    return pages | ops.PROBE_PATHS if settings.probes == "open" else pages


def _compose(settings: Settings, on_death: Callable[[str], None]) -> _Process:
    metrics = Metrics(CollectorRegistry())
    parts = create_parts(settings.traces, metrics)
    repository = open_repository(settings)
    create = partial(create_model, settings, metrics, CLOCK, parts.batcher)
    entries = select_entries(settings, repository)
    table = create_table(entries, lambda entry: create(entry, on_death))
    caches = create_caches(settings, metrics, CLOCK)
    pool = _create_pool(settings, metrics)
    webhook = _create_webhook(settings, metrics)
    monitor = _create_run_monitor(settings, metrics, webhook)
    prepared = PreparedCache(settings.prepared_bytes, metrics)
    service = parts.service(
        models=table,
        cache=caches.scores,
        flights=caches.flights,
        balances=caches.balances,
        preparer=Preparer(prepared, pool),
        metrics=metrics,
        limits=ScoringLimits(settings.max_items, settings.max_request_tokens, settings.timeout),
        clock=CLOCK,
        monitor=monitor,
        is_cache_private=settings.private_cache,
    )
    shadowing = Shadowing(service, table, metrics)
    service.set_mirror(shadowing.mirror)

    lifecycle = _create_lifecycle(
        settings,
        metrics,
        table,
        create=create,
        prepared=prepared,
        end_shadow=shadowing.stop,
        on_death=on_death,
    )
    components = Components(
        service=service,
        lifecycle=lifecycle,
        shadowing=shadowing,
        metrics=metrics,
        runs=monitor,
        subscribers=Subscribers(monitor),
        jobs=Jobs(JOB_LIMITS, CLOCK),
        abort=lifecycle.abort,
        bodies=BodyBudget(settings.max_held_bytes),
        redis=caches.redis_state,
    )
    return _Process(
        settings=settings,
        repository=repository,
        components=components,
        keys=_read_keys(settings),
        caches=caches,
        pool=pool,
        webhook=webhook,
        loop_monitor=EventLoopMonitor(metrics),
        parts=parts,
        on_death=on_death,
    )


def _create_pool(settings: Settings, metrics: Metrics) -> PreparationPool:
    return PreparationPool(
        settings.prepare_threads,
        max_bytes=settings.max_prepare_bytes,
        clock=CLOCK,
        metrics=metrics,
    )


def _create_lifecycle(
    settings: Settings,
    metrics: Metrics,
    table: ModelTable,
    *,
    create: Callable[..., ServedModel],
    prepared: PreparedCache,
    end_shadow: Callable[[str], None],
    on_death: Callable[[str], None],
) -> ModelLifecycle:
    def on_unloaded(model: str) -> None:
        prepared.clear()
        metrics.forget_model(model)

    metrics.scaling_tokens.set_function(table.scaling_tokens)
    return ModelLifecycle(
        table,
        create=create,
        open_repository=partial(open_repository, settings),
        runtime=Runtime(
            settings.device,
            settings.dtype,
            settings.deterministic,
            engine_listener=metrics.engines,
        ),
        limits=LifecycleLimits(settings.load_timeout, settings.drain_timeout),
        on_death=on_death,
        end_shadow=end_shadow,
        on_unloaded=on_unloaded,
        trim=glibc_release(),
    )


def _read_keys(settings: Settings) -> ApiKeys | None:
    """Return the accepted API keys; None if the server requires none."""
    if not settings.has_keys:
        _check_needs_no_keys(settings)
        return None
    keys = [key.get_secret_value() for key in settings.api_keys]
    share = share_of(settings.key_rate, settings.key_concurrency)
    return ApiKeys(keys, settings.api_keys_file, share)


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
    try:
        place = open_place(settings.runs)
    except ValueError as error:
        raise SettingsError(f"ASSAY_RUNS: {error}") from None
    evaluator = RunEvaluator(
        gauges=RunGauges(metrics.runs),
        notify=webhook.send if webhook else None,
        interval=settings.evaluation_seconds,
        clock=CLOCK,
        series=metrics.runs,
        alerts=share_alerts(place, webhook),
    )
    return RunMonitor(place, metrics, CLOCK, evaluator=evaluator)


def _lifespan(process: _Process) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        freezing = await _start(process)
        refreshing = asyncio.create_task(_refresh_keys(process.keys))
        try:
            yield
        finally:
            refreshing.cancel()
            freezing.cancel()
            await _shut_down(process)

    return lifespan


async def _start(process: _Process) -> asyncio.Task[None]:
    """Start every part; models load in the background. Return the task that waits for them."""
    process.loop_monitor.start()
    if process.webhook is not None:
        process.webhook.start()
    process.caches.start()
    await process.components.runs.open()
    models = process.components.service.models()
    process.components.lifecycle.start(process.repository)
    freezing = asyncio.create_task(_freeze_when_loaded(models, process.on_death))
    await asyncio.sleep(0)  # so that the task is waiting before requests arrive
    return freezing


async def _refresh_keys(keys: ApiKeys | None) -> None:
    if keys is not None:
        await keys.keep_fresh()


async def _shut_down(process: _Process) -> None:
    """Finish the admitted requests, then stop every part."""
    components = process.components
    components.subscribers.close()
    timeout = 0.0 if components.shutdown.is_forced else process.settings.drain_timeout
    await components.lifecycle.close(timeout)
    await components.jobs.close()
    await components.runs.close()
    if process.webhook is not None:
        await asyncio.to_thread(process.webhook.close)
    await process.caches.close()
    process.pool.close()
    process.loop_monitor.stop()
    await process.parts.close()


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
