"""The routes of models: list them, show their cards, load, promote and unload them."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from assay.api.components import Components, components_of
from assay.api.errors import PROBLEMS, Problem
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.middleware import caller_of
from assay.api.schemas import (
    Body,
    LoadBody,
    ModelDetail,
    ModelList,
    ModelState,
    ModelSummary,
    OpenAIModel,
    Shadow,
)
from assay.lifecycle.lifecycle import LoadOrder
from assay.lifecycle.table import ModelTable
from assay.served_model import Ready, ServedModel
from assay_models.base import Options

MAX_WAIT_SECONDS = 300.0
HIDDEN_REASON = "the server's log says why; a key with the scope read sees it here"
PROBLEM = {"model": Problem, "content": {"application/problem+json": {}}}
CHANGES: dict[int | str, dict[str, Any]] = {
    202: {"model": ModelSummary, "description": "Under way: ask for the model's state"},
    409: {**PROBLEM, "description": "Not possible in the model's present role"},
    507: {**PROBLEM, "description": "Not enough memory"},
}

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["models"])


class WaitQuery(Body):
    """Seconds to wait until the model is neither loading nor unloading, before the reply."""

    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False)] = 0.0


Wait = Annotated[WaitQuery, Query()]


@router.get("/v1/models", response_model=ModelList)
async def list_models(request: Request) -> Response:
    """List all served models and their states, and those that are being unloaded."""
    components = components_of(request.app)
    served = components.service.models()
    data = [OpenAIModel(id=model.id, created=model.created) for model in served]
    unloading = components.lifecycle.table.unloading.values()
    models = [_summary(request, model) for model in (*served, *unloading)]
    return json_response(ModelList(data=data, models=models))


@router.post("/v1/models", response_model=ModelSummary, responses=CHANGES)
async def load_model(request: Request, body: LoadBody, query: Wait) -> Response:
    """Load a model of the repository, which is read anew, without a restart.

    The reply comes at once (202), and `GET /v1/models/{model}` has the state from then on; with
    `wait` it comes once the model is ready or has failed (200).
    """
    components = components_of(request.app)
    order = LoadOrder(body.model, body.shadow_of, body.default)
    served = await components.lifecycle.load(order)
    return await _state(request, served, query)


@router.get("/v1/models/{model}", response_model=ModelDetail)
async def show_model(request: Request, model: str, query: Wait) -> Response:
    """Return a model's card: data, measured quality, limits, fingerprint and self-test result."""
    components = components_of(request.app)
    served = components.lifecycle.table.unloading.get(model) or components.service.find(model)
    if query.wait:
        await components.lifecycle.wait(served, query.wait)
    state, test = served.state, served.self_test
    ready = state if isinstance(state, Ready) and served.unproven is None else None
    detail = {
        **served.card.model_dump(mode="json"),
        **_summary(request, served).model_dump(),
        "fingerprint": None if ready is None else ready.fingerprint(Options()),
        "parity": test and {**asdict(test), "passed": test.passed},
    }
    return json_response(ModelDetail.model_validate(detail))


@router.post("/v1/models/{model}/promote", response_model=ModelSummary, responses=CHANGES)
async def promote_model(request: Request, model: str) -> Response:
    """Make a version the default of its bare name; it is no shadow from then on."""
    served = components_of(request.app).lifecycle.promote(model)
    return json_response(_summary(request, served))


@router.delete("/v1/models/{model}", response_model=ModelSummary, responses=CHANGES)
async def unload_model(request: Request, model: str, query: Wait) -> Response:
    """Unload a model: no request can name it any more, those admitted are finished.

    The reply comes at once (202); with `wait` it comes once the memory was returned (200).
    """
    return await _state(request, components_of(request.app).lifecycle.unload(model), query)


async def _state(request: Request, served: ServedModel, query: WaitQuery) -> Response:
    if query.wait:
        await components_of(request.app).lifecycle.wait(served, query.wait)
    summary = _summary(request, served)
    is_under_way = summary.state in ("loading", "unloading")
    return json_response(summary, 202 if is_under_way else 200)


def _summary(request: Request, served: ServedModel) -> ModelSummary:
    components = components_of(request.app)
    card, table = served.card, components.lifecycle.table
    shadow_of = table.primary_of(card.id)
    reason = served.failure or served.unproven
    return ModelSummary(
        id=card.id,
        created=served.created,
        name=card.name,
        version=card.version,
        default=table.is_default(served),
        family=card.family,
        title=card.title,
        summary=card.summary,
        state=_state_name(table, served),
        failure=reason if caller_of(request.scope).sees_reasons else reason and HIDDEN_REASON,
        shadow_of=shadow_of,
        shadow=None if shadow_of is None else _shadow(components, card.id),
    )


def _state_name(table: ModelTable, served: ServedModel) -> ModelState:
    if table.unloading.get(served.id) is served:
        return "unloading"
    is_refused = isinstance(served.state, Ready) and served.unproven is not None
    return "not_proven" if is_refused else served.state.name


def _shadow(components: Components, model: str) -> Shadow:
    report = components.shadowing.report(model)
    return Shadow(
        compared=report.compared,
        failed=report.failed,
        dropped=report.dropped,
        mean_absolute_difference=report.mean_absolute_difference,
        pair_agreement=report.pair_agreement,
    )
