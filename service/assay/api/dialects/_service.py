"""Scoring for all dialects, and the errors of formats without a place for an item's failure."""

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
# Codes of failed items for which the client may retry, and those that are the server's fault.
RETRYABLE_CODES = frozenset(("parser_unavailable", "shutting_down"))
SERVER_CODES = frozenset(
    ("inference_failed", "item_failed", "non_finite_score", "not_finished", "sandbox_failed")
)
DEFAULT_OPTIONS, RAW_OPTIONS = Options(), Options(raw=True)
TRUNCATION_OPTIONS = [Options(truncation) for truncation in get_args(Truncation)]
TRUNCATION_PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": "truncation",
            "in": "query",
            "required": False,
            "description": "The side on which an over-long item is truncated; `error`: none.",
            "schema": {"enum": list(get_args(Truncation)), "default": "error"},
        }
    ]
}


def resolve_model(request: Request, model: str | None) -> ServedModel:
    """Return the model of that name; without a name, the only served model.

    Raises:
        ModelNotFound: no model of that name is served.
        InvalidRequest: no model is named, and several are served.
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


def options_from_query(request: Request) -> Options:
    """Return the options in the URL's query, the only place that a trainer lets its user set.

    Raises:
        InvalidRequest: `truncation` has an unknown value.
    """
    wanted = request.query_params.get("truncation", "error")
    for options in TRUNCATION_OPTIONS:
        if options.truncation == wanted:
            return options
    raise InvalidRequest(
        f"truncation: there is no {wanted!r}",
        hint=f"one of {', '.join(options.truncation for options in TRUNCATION_OPTIONS)}",
    )


async def score(
    request: Request,
    served: ServedModel,
    items: Sequence[Mapping[str, Any]],
    *,
    timeout: int | None,
    lane: Lane,
    client_timeout: float | None = None,
    options: Options = DEFAULT_OPTIONS,
) -> ScoreReply:
    """Score items, retrying within the client's timeout while the service cannot accept them.

    Args:
        request: the request, whose app holds the service.
        served: the model.
        items: the items, in the fields of the model's family.
        timeout: the client's own limit in milliseconds, if the request sets one.
        lane: the priority lane.
        client_timeout: seconds after which this dialect's client disconnects, less the time that
            the reply takes. While the queue is full or the model is loading, the request is held
            and retried within this time, because such a client retries too seldom or not at all.
            After it the reply is 503, also for a full queue: some clients give up on any 4xx.
        options: options of the scores.

    Raises:
        OutOfTime: the time is over.
        Overloaded, ModelNotReady: the queue will not have room, or the model will not be ready,
            within the time.
        AssayError: the request as a whole cannot be served.
    """
    limits = [client_timeout, None if timeout is None else timeout / 1e3]
    seconds = min((limit for limit in limits if limit is not None), default=None)
    ends = None if client_timeout is None or seconds is None else time.monotonic() + seconds
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


def scores_of(reply: ScoreReply) -> list[float]:
    """Return the score of every item.

    Raises:
        ItemsFailed: an item has no score.
    """
    return [result.score for result in require_scores(reply) if result.score is not None]


def require_scores(reply: ScoreReply) -> list[ItemResult]:
    """Return the results, each of which has a score.

    Raises:
        ItemsFailed: an item has no score.
    """
    failure = find_failure(reply.results)
    if failure is not None:
        raise failure
    return reply.results


def find_failure(results: Sequence[ItemResult]) -> ItemsFailed | None:
    """Return the error for the items that failed; None if none did."""
    failed = [result for result in results if result.error is not None]
    return _failure(failed) if failed else None


def probability(result: ItemResult) -> float:
    """Return a score as engines activate it: the probability of its label, which is the first
    channel where there are several, or the logistic of the raw.

    A score that a rule decided, and one that is a value and no log-odds (of a regression, or a
    weighted sum), are returned unchanged.
    """
    assert result.score is not None
    if result.raw is None or result.details.get("scale") == "value":
        return result.score
    if "probabilities" in result.details:
        activated = next(iter(result.channels.values()))
        assert activated is not None
        return activated
    return sigmoid(result.raw)


def _service(request: Request) -> ScoringService:
    return components_of(request.app).service


def _failure(failed: Sequence[ItemResult]) -> ItemsFailed:
    reasons = [
        (result.index, result.error.code, result.error.detail) for result in failed if result.error
    ]
    index, code, detail = reasons[0]
    codes = {code for _, code, _ in reasons}
    is_retryable = codes <= RETRYABLE_CODES
    return ItemsFailed(
        f"item {index} has no score: {code}: {detail}",
        hint="POST /v1/score answers item by item",
        problems=[
            {"field": f"items.{position}", "problem": f"{reason}: {text}"}
            for position, reason, text in reasons
        ],
        status=503 if is_retryable else 500 if codes <= RETRYABLE_CODES | SERVER_CODES else None,
        retryable=True if is_retryable else None,
        retry_after=RETRY_SECONDS if is_retryable else None,
    )


def _unavailable(error: AssayError) -> AssayError:
    """Return the same error as a 503, for clients that give up on any 4xx."""
    return type(error)(
        error.detail,
        hint=error.hint,
        retry_after=error.retry_after,
        problems=error.problems,
        code=error.code,
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        title=error.title,
        retryable=error.retryable,
    )
