"""The routes of operation: liveness, readiness, metrics and version."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from assay import __version__
from assay.api.components import components_of
from assay.api.json import json_response
from assay.api.schemas import Readiness
from assay.served_model import Ready, ServedModel

router = APIRouter(tags=["operation"])


@router.get("/healthz", response_class=PlainTextResponse)
@router.get("/v2/health/live", response_class=PlainTextResponse)
async def healthz() -> str:
    """Return 200 while the process is alive. For the models' state see /readyz."""
    return "ok"


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
@router.get("/v2/health/ready", response_model=Readiness, responses={503: {"model": Readiness}})
async def readyz(request: Request) -> Response:
    """Return 200 if every model computed recently or computes now, else 503 and the reasons."""
    models = components_of(request.app).service.models()
    states = await asyncio.gather(*map(_state, models))
    ready = all(state == "ready" for state in states)
    names = [served.id for served in models]
    answer = Readiness(ready=ready, models=dict(zip(names, states, strict=True)))
    return json_response(answer, 200 if ready else 503)


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
    return "ready" if await served.is_computing() else "not computing"
