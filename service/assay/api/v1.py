"""The v1 routes: scoring and best-of-n. They only translate."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from assay.api.components import components_of
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.middleware import caller_of
from assay.api.parameters import NO_RUN, NativeParameters, Parameters
from assay.api.schemas import (
    BestOfNBody,
    ModelScoreBody,
    OptionsBody,
    ScoreBody,
)
from assay.scoring.best_of_n import BestOfNCall, best_of_n
from assay.scoring.service import ScoreCall, ScoringService
from assay.types import BestOfNReply, Lane, ScoreReply
from assay_models.base import Options

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS)


def _service(request: Request) -> ScoringService:
    return components_of(request.app).service


def _score_call(
    request: Request,
    body: ModelScoreBody | BestOfNBody,
    *,
    model: str,
    items: Sequence[Mapping[str, Any]],
    parameters: Parameters,
    lane: Lane,
) -> ScoreCall:
    fallback, timeout = body.options.on_error, parameters.timeout
    has_run = body.run is not None or parameters.run != NO_RUN
    return ScoreCall(
        model=model,
        items=items,
        options=parse_options(body.options),
        substitute=None if fallback is None else fallback.substitute,
        timeout=None if timeout is None else timeout / 1e3,
        lane=parameters.lane or lane,
        run=parameters.run_step(body.run) if has_run else None,
        caller=caller_of(request.scope),
    )


def parse_options(options: OptionsBody) -> Options:
    """Return a request's options, with the numbers sorted by name."""
    if options.weights is None and options.min_confidence is None and options.group_size is None:
        return Options(options.truncation, options.raw)
    weights = {} if options.weights is None else options.weights.model_dump(exclude_none=True)
    numbers = {f"weights.{label}": float(weight) for label, weight in weights.items()}
    if options.min_confidence is not None:
        numbers["min_confidence"] = float(options.min_confidence)
    if options.group_size is not None:
        numbers["group_size"] = float(options.group_size)
    return Options(options.truncation, options.raw, tuple(sorted(numbers.items())))


@router.post("/v1/score", response_model=ScoreReply, tags=["scoring"])
@router.post("/score", response_model=ScoreReply, tags=["scoring"], include_in_schema=False)
async def score(request: Request, body: ScoreBody, parameters: NativeParameters) -> Response:
    """Score items. An item that fails carries an error and no score; the others are unaffected."""
    call = _score_call(
        request, body, model=body.model, items=body.items, parameters=parameters, lane="training"
    )
    return json_response(await _service(request).score(call))


@router.post("/v1/models/{model}/score", response_model=ScoreReply, tags=["scoring"])
async def score_with_model(
    request: Request, model: str, *, body: ModelScoreBody, parameters: NativeParameters
) -> Response:
    """Score items with the model in the path."""
    call = _score_call(
        request, body, model=model, items=body.items, parameters=parameters, lane="training"
    )
    return json_response(await _service(request).score(call))


@router.post("/v1/best-of-n", response_model=BestOfNReply, tags=["scoring"])
async def rank_candidates(
    request: Request, body: BestOfNBody, parameters: NativeParameters
) -> Response:
    """Rank the candidates of one prompt. Candidates that could not be scored come last."""
    call = BestOfNCall(
        score=_score_call(
            request, body, model=body.model, items=(), parameters=parameters, lane="interactive"
        ),
        candidates=body.candidates,
        shared=body.__pydantic_extra__,
        top_n=body.top_n,
        tie_margin=body.tie_margin,
        abstain_below=body.abstain_below,
        min_confidence=body.min_confidence,
    )
    return json_response(await best_of_n(_service(request), call))
