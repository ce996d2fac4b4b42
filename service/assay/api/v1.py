"""The v1 routes: scoring, best-of-n and the models' cards. They translate, and decide nothing."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from assay.api.errors import Problem
from assay.api.schemas import (
    BestOfNBody,
    JsonRoute,
    ModelDetail,
    ModelList,
    ModelScoreBody,
    ModelSummary,
    ScoreBody,
    json_response,
)
from assay.best_of_n import BestOfNCall, best_of_n
from assay.hosting import ServedModel
from assay.results import BestOfNReply, ScoreReply
from assay.scoring import ScoreCall, ScoringService
from assay_models.base import Options

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": title, "content": {"application/problem+json": {}}}
    for status, title in (
        (400, "Unreadable body"),
        (401, "API key required"),
        (403, "API key not accepted"),
        (404, "Model not found"),
        (413, "Request too large"),
        (422, "Invalid request"),
        (429, "Overloaded; Retry-After says when to try again"),
        (503, "Model not ready, or the server is shutting down"),
        (504, "Deadline exceeded"),
    )
}

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS)

Timeout = Annotated[
    int | None,
    Header(
        alias="X-Assay-Timeout-Ms",
        ge=1,
        le=3_600_000,
        description="Milliseconds the caller waits; what takes longer is dropped unscored.",
    ),
]


def _service(request: Request) -> ScoringService:
    service = request.app.state.service
    assert isinstance(service, ScoringService)
    return service


def _call(model: str, body: ModelScoreBody, timeout: int | None) -> ScoreCall:
    return ScoreCall(
        model=model,
        items=body.items,
        options=body.options.chosen(),
        substitute=body.options.stand_in,
        timeout=None if timeout is None else timeout / 1e3,
    )


@router.post("/v1/score", response_model=ScoreReply, tags=["scoring"])
@router.post("/score", response_model=ScoreReply, tags=["scoring"], include_in_schema=False)
async def score(request: Request, body: ScoreBody, timeout: Timeout = None) -> Response:
    """Score items. One that fails carries an error and no number; its neighbours are unharmed."""
    return json_response(await _service(request).score(_call(body.model, body, timeout)))


@router.post("/v1/models/{model}/score", response_model=ScoreReply, tags=["scoring"])
async def score_with(
    request: Request, model: str, body: ModelScoreBody, timeout: Timeout = None
) -> Response:
    """Score items with the model of the path."""
    return json_response(await _service(request).score(_call(model, body, timeout)))


@router.post("/v1/best-of-n", response_model=BestOfNReply, tags=["scoring"])
async def rank_candidates(request: Request, body: BestOfNBody, timeout: Timeout = None) -> Response:
    """Rank the candidates of one prompt. Who could not be scored comes last, marked."""
    call = BestOfNCall(
        score=ScoreCall(
            model=body.model,
            items=(),
            options=body.options.chosen(),
            substitute=body.options.stand_in,
            timeout=None if timeout is None else timeout / 1e3,
        ),
        candidates=body.candidates,
        shared=body.__pydantic_extra__,
        top_n=body.top_n,
        tie_margin=body.tie_margin,
        abstain_below=body.abstain_below,
    )
    return json_response(await best_of_n(_service(request), call))


@router.get("/v1/models", response_model=ModelList, tags=["models"])
async def list_models(request: Request) -> Response:
    """All served models and whether they compute."""
    service = _service(request)
    models = [_summary(one, service.find(one.card.name) is one) for one in service.models()]
    return json_response(ModelList(models=models))


@router.get("/v1/models/{model}", response_model=ModelDetail, tags=["models"])
async def show_model(request: Request, model: str) -> Response:
    """One model's card: data, measured quality, limits, fingerprint and the self-test's figures."""
    service = _service(request)
    served = service.find(model)
    test = served.self_test
    told = {
        **served.card.model_dump(mode="json"),
        **_summary(served, service.find(served.card.name) is served).model_dump(),
        "fingerprint": served.fingerprints.get(Options()),
        "parity": test and {**asdict(test), "passed": test.passed},
    }
    return json_response(ModelDetail.model_validate(told))


def _summary(served: ServedModel, default: bool) -> ModelSummary:
    card = served.card
    return ModelSummary(
        id=card.id,
        name=card.name,
        version=card.version,
        default=default,
        family=card.family,
        title=card.title,
        summary=card.summary,
        state=served.state,
        failure=served.failure,
    )
