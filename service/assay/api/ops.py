"""The routes of operation: liveness, readiness, metrics and version."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from assay import __version__
from assay.api.components import components_of
from assay.api.json import json_response
from assay.api.middleware import caller_of
from assay.api.schemas import Readiness
from assay.api.scopes import ScopedRoute
from assay.health import is_available, is_started
from assay.served_model import Ready, ServedModel

router = APIRouter(route_class=ScopedRoute, tags=["operation"])


LIVENESS_PATHS = ("/healthz", "/livez", "/health", "/ping", "/v2/health/live")
READINESS_PATHS = ("/readyz", "/v2/health/ready")
STARTUP_PATH = "/startupz"
PROBE_PATHS = frozenset((*LIVENESS_PATHS, *READINESS_PATHS, STARTUP_PATH))


async def healthz() -> str:
    """Return 200 while the process is alive. For the models' state see /readyz."""
    return "ok"


async def startupz(request: Request) -> Response:
    """Return 200 once every model is loaded, else 503.

    A model that an engine computes is loaded whether its engine is there or not. Models count as
    for /readyz.
    """
    required = components_of(request.app).lifecycle.table.required()
    started = all(map(is_started, required))
    return PlainTextResponse("started" if started else "loading", 200 if started else 503)


async def readyz(request: Request) -> Response:
    """Return 200 if every model computed recently or computes now, else 503 and the reasons.

    A lost engine does not end it once it was proven; the states name it. Shadows, and
    models that were loaded later and are not ready yet, do not count. It is 503 too once a stop was
    requested, and never because of Redis.
    """
    components = components_of(request.app)
    models = components.service.models()
    names = [served.id for served in models]
    states = dict(zip(names, await asyncio.gather(*map(_state, models)), strict=True))
    redis = None if components.redis is None else components.redis.state
    is_stopping = components.shutdown.is_announced
    required = components.lifecycle.table.required()
    available = [await is_available(served, states.get(served.id, "")) for served in required]
    ready = not is_stopping and all(available)
    caller = caller_of(request.scope)
    if not caller.is_trusted:  # names are for those with a key, reasons for those who may read
        states, redis = {}, None
    elif not caller.sees_reasons:
        states = {name: state.partition(":")[0] for name, state in states.items()}
    answer = Readiness(ready=ready, shutting_down=is_stopping, models=states, redis=redis)
    return json_response(answer, 200 if ready else 503)


for _path in LIVENESS_PATHS:
    router.get(_path, response_class=PlainTextResponse)(healthz)
router.get(STARTUP_PATH, response_class=PlainTextResponse)(startupz)
for _path in READINESS_PATHS:
    router.get(_path, response_model=Readiness, responses={503: {"model": Readiness}})(readyz)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return the Prometheus metrics."""
    components = components_of(request.app)
    components.runs.publish()
    registry = components.metrics.registry
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/version")
async def version() -> dict[str, str]:
    """Return the server's version."""
    return {"version": __version__}


async def _state(served: ServedModel) -> str:
    if not isinstance(served.state, Ready):
        name = served.state.name
        return f"{name}: {served.failure}" if served.failure else name
    return "ready" if await served.is_computing() else served.condition
