"""What every dialect asks of the service, and its failure where a reply has no place for one."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, get_args

from fastapi import Request

from assay.api.components import components_of
from assay.errors import (
    AssayError,
    DeadlineExceeded,
    InvalidRequest,
    ItemsFailed,
    ModelNotReady,
    OutOfTime,
    Overloaded,
)
from assay.scoring.service import ScoreCall, ScoringService
from assay.served_model import ServedModel
from assay.types import ItemResult, Lane, ScoreReply
from assay_models.base import Options, Truncation
from assay_models.shaping import sigmoid

RETRY_SECONDS = 1.0
PASSING = frozenset(("parser_unavailable", "shutting_down"))
OURS = frozenset(
    ("inference_failed", "item_failed", "non_finite_score", "not_finished", "sandbox_failed")
)
SCORED, RAW = Options(), Options(raw=True)
CUTS = [Options(truncation) for truncation in get_args(Truncation)]
TRUNCATION: dict[str, Any] = {
    "parameters": [
        {
            "name": "truncation",
            "in": "query",
            "required": False,
            "description": "Which side of an item that is too long is cut; `error` cuts none.",
            "schema": {"enum": list(get_args(Truncation)), "default": "error"},
        }
    ]
}


def resolve_model(request: Request, model: str | None) -> ServedModel:
    """The model that is named; where none is, the only one there is.

    Raises:
        ModelNotFound: it is not served.
        InvalidRequest: none is named, and several are served.
    """
    service = _service(request)
    if model is not None:
        return service.find(model)
    models = service.models()
    if len(models) > 1:
        names = ", ".join(served.id for served in models)
        raise InvalidRequest(
            "model: several are served, and this request names none",
            hint=f"name one of {names}, as ?model= or in the path; or serve one (ASSAY_MODELS)",
        )
    return models[0]


def options_of(request: Request) -> Options:
    """What the URL's query asks for, because it is all that a trainer lets its user write.

    Raises:
        InvalidRequest: `truncation` has no such value.
    """
    wanted = request.query_params.get("truncation", "error")
    for options in CUTS:
        if options.truncation == wanted:
            return options
    raise InvalidRequest(
        f"truncation: there is no {wanted!r}",
        hint=f"one of {', '.join(options.truncation for options in CUTS)}",
    )


async def score(
    request: Request,
    served: ServedModel,
    items: Sequence[Mapping[str, Any]],
    timeout: int | None,
    lane: Lane,
    *,
    patience: float | None = None,
    options: Options = SCORED,
) -> ScoreReply:
    """The scores of these items.

    Args:
        request: whose app holds the service.
        served: the model.
        items: in its family's fields.
        timeout: milliseconds, where the caller says so.
        lane: who goes first.
        patience: seconds after which this kind of client hangs up, less what a reply takes. So
            long a request is held that finds no room, or a model that is still loading: such a
            client tries again too seldom or not at all. Then it hears 503, also for a full queue,
            because some give up on any 4xx.
        options: of the scores.

    Raises:
        OutOfTime: the client is about to hang up.
        Overloaded, ModelNotReady: that will not have changed by then.
        AssayError: the request as a whole cannot be served.
    """
    bounds = [patience, None if timeout is None else timeout / 1e3]
    seconds = min((bound for bound in bounds if bound is not None), default=None)
    ends = None if patience is None or seconds is None else time.monotonic() + seconds
    call = ScoreCall(served.id, items, options, timeout=seconds, lane=lane)
    while True:
        try:
            return await _service(request).score(call)
        except DeadlineExceeded as error:
            raise OutOfTime(error.detail, hint=error.hint, retry_after=RETRY_SECONDS) from error
        except (Overloaded, ModelNotReady) as error:
            pause = RETRY_SECONDS if error.retry_after is None else error.retry_after
            left = None if ends is None else ends - time.monotonic() - pause
            if left is None:
                raise
            if left <= 0 or not error.retryable:
                raise _unavailable(error) from error
        await asyncio.sleep(pause)
        call = replace(call, timeout=left)


def numbers(reply: ScoreReply) -> list[float]:
    """The scores, each of them there.

    Raises:
        ItemsFailed: one is not.
    """
    return [result.score for result in whole(reply) if result.score is not None]


def whole(reply: ScoreReply) -> list[ItemResult]:
    """The results, none of which has failed.

    Raises:
        ItemsFailed: one has.
    """
    failure = failure_of(reply.results)
    if failure is not None:
        raise failure
    return reply.results


def failure_of(results: Sequence[ItemResult]) -> ItemsFailed | None:
    """The error that these results amount to, if any has failed."""
    failed = [result for result in results if result.error is not None]
    return _failure(failed) if failed else None


def probability(result: ItemResult) -> float:
    """A score as the engines activate it: the logistic of the raw, or of the calibrated log-odds.

    What a rule decided has no raw, and stays as it is.
    """
    assert result.score is not None
    if result.raw is None:
        return result.score
    return sigmoid(result.score if "probabilities" in result.details else result.raw)


def _service(request: Request) -> ScoringService:
    return components_of(request.app).service


def _failure(failed: Sequence[ItemResult]) -> ItemsFailed:
    reasons = [
        (result.index, result.error.code, result.error.detail) for result in failed if result.error
    ]
    index, code, detail = reasons[0]
    codes = {code for _, code, _ in reasons}
    passing = codes <= PASSING
    return ItemsFailed(
        f"item {index} has no score: {code}: {detail}",
        hint="POST /v1/score answers item by item",
        problems=[
            {"field": f"items.{place}", "problem": f"{reason}: {more}"}
            for place, reason, more in reasons
        ],
        status=503 if passing else 500 if codes <= PASSING | OURS else None,
        retryable=True if passing else None,
        retry_after=RETRY_SECONDS if passing else None,
    )


def _unavailable(error: AssayError) -> AssayError:
    """Return the same error as a 503, for clients that give up on any 4xx."""
    return type(error)(
        error.detail,
        hint=error.hint,
        retry_after=error.retry_after,
        status=HTTPStatus.SERVICE_UNAVAILABLE,
    )
