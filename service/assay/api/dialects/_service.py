"""Scoring for all dialects, and the errors of formats without a place for an item's failure."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from fastapi import Request

from assay.api.components import components_of
from assay.api.middleware import caller_of
from assay.api.parameters import Parameters
from assay.errors import (
    AssayError,
    DeadlineExceeded,
    InvalidRequest,
    ItemsFailed,
    ModelNotFound,
    ModelNotReady,
    OutOfTime,
    Overloaded,
)
from assay.runs.steps import RunStep
from assay.scoring.service import ScoreCall, ScoringService
from assay.served_model import ServedModel
from assay.types import ItemResult, Lane, ScoreReply
from assay_models.base import Options, Truncation
from assay_models.shaping import sigmoid

RETRY_SECONDS = 1.0
# Codes of failed items for which the client may retry, and those that are the server's fault.
RETRYABLE_CODES = frozenset(
    ("engine_timeout", "engine_unavailable", "parser_unavailable", "shutting_down")
)
SERVER_CODES = frozenset(
    (
        "engine_bad_reply",
        "engine_refused",
        "inference_failed",
        "item_failed",
        "non_finite_score",
        "not_finished",
        "sandbox_failed",
    )
)
DEFAULT_OPTIONS = Options()
# Where a native request sets the option that an item's error names, and a foreign one.
NATIVE_OPTION, FOREIGN_OPTION = "options.truncation", "?truncation="
# The name that infinity's client sends where its user names no model.
UNNAMED = "default/not-specified"


def resolve_model(request: Request, model: str | None, run: RunStep | None = None) -> ServedModel:
    """Return the model of that name; without a name, the only served model.

    Args:
        request: the request.
        model: the name; None if it names none.
        run: the run that it names; see `ScoringService.find`.

    Raises:
        ModelNotFound: no model of that name is served.
        InvalidRequest: no model is named, and several are served.
    """
    service = _service(request)
    if model not in (None, UNNAMED):
        return service.find(model, run, caller_of(request.scope))
    models = service.unnamed()
    if len(models) != 1:
        names = ", ".join(served.id for served in models)
        raise InvalidRequest(
            "model: several are served, and this request names none",
            hint=f"name one of {names}, as ?model= or in the path; or serve one (ASSAY_MODELS)",
        )
    return service.find(models[0].card.name, run, caller_of(request.scope))


def select_model(
    request: Request, parameters: Parameters, body_model: str | None = None
) -> ServedModel:
    """Return the model that the path, the query or the body names, or else the only served one.

    Args:
        request: the request.
        parameters: its parameters outside the body.
        body_model: the model in the body. Beside a path or a query that names one, it may be any
            name of the client's own, as long as no other served model has it.

    Raises:
        ModelNotFound: no model of that name is served.
        InvalidRequest: two places name different models, or none names one of several.
    """
    given = (parameters.path_model, parameters.query_model)
    names = [name for name in given if name is not None]
    run = parameters.run_step()
    if not names:
        return resolve_model(request, body_model, run)
    served, *others = (resolve_model(request, name, run) for name in names)
    if body_model is not None:
        with suppress(ModelNotFound):
            others.append(resolve_model(request, body_model, run))
    if any(other is not served for other in others):
        raise InvalidRequest(
            "model: the path, ?model= and the body name different ones",
            hint=f"name it once; {served.id} is the first",
            problems=[{"field": "model", "problem": "two models are named"}],
        )
    return served


def merge_truncation(
    parameters: Parameters, *, requested: bool, side: Truncation | None, default: Truncation
) -> Truncation:
    """Return the truncation that the body and the query ask for.

    Args:
        parameters: the request's parameters outside the body.
        requested: whether the body asks for truncation at all.
        side: the side that the body names; None if it names none.
        default: the side on which the body's server cuts if none is named.

    Raises:
        InvalidRequest: body and query ask for different things.
    """
    wanted = parameters.truncation
    if not requested:
        return wanted or "error"
    if wanted is None:
        return side or default
    if wanted == "error" or side not in (None, wanted):
        raise InvalidRequest(
            f"?truncation={wanted}: the body asks for truncation in another way",
            hint="ask for it in one place",
        )
    return wanted


async def score(
    request: Request,
    served: ServedModel,
    items: Sequence[Mapping[str, Any]],
    *,
    parameters: Parameters,
    lane: Lane = "training",
    client_timeout: float | None = None,
    options: Options | None = None,
) -> ScoreReply:
    """Score items, retrying within the client's timeout while the service cannot accept them.

    Args:
        request: the request, whose app holds the service.
        served: the model.
        items: the items, in the fields of the model's family.
        parameters: the request's parameters outside the body.
        lane: the priority lane of a request that names none.
        client_timeout: seconds after which this dialect's client disconnects, less the time that
            the reply takes. While the queue is full or the model is loading, the request is held
            and retried within this time, because such a client retries too seldom or not at all.
            After it the reply is 503, also for a full queue: some clients give up on any 4xx.
        options: options of the scores; None for those of the query.

    Raises:
        OutOfTime: the time is over.
        Overloaded, ModelNotReady: the queue will not have room, or the model will not be ready,
            within the time.
        AssayError: the request as a whole cannot be served.
    """
    timeout = parameters.timeout
    limits = [client_timeout, None if timeout is None else timeout / 1e3]
    seconds = min((limit for limit in limits if limit is not None), default=None)
    ends = None if client_timeout is None or seconds is None else time.monotonic() + seconds
    call = ScoreCall(
        served.id,
        items,
        Options(parameters.truncation or "error") if options is None else options,
        timeout=seconds,
        lane=parameters.lane or lane,
        run=parameters.run_step(),
        caller=caller_of(request.scope),
    )
    while True:
        try:
            return _with_foreign_options(await _service(request).score(call))
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


def ranked_documents(
    reply: ScoreReply, texts: Sequence[str], key: Callable[[ItemResult], tuple[float, float]]
) -> list[ItemResult]:
    """Return the results of a ranking's documents, best first.

    An empty document may be without a score. It comes last, with null for its score: no number
    stands for it, and clients that read results by position do not shift the others.

    Args:
        reply: the reply to one item for each document.
        texts: the documents.
        key: the function by which results with a score are sorted, the highest first.

    Raises:
        ItemsFailed: another document has no score, or none has one.
    """
    failed = [result for result in reply.results if result.error is not None]
    is_any_text = any(texts[result.index].strip() for result in failed)
    if failed and (is_any_text or len(failed) == len(texts)):
        raise _failure(failed)
    scored = [result for result in reply.results if result.error is None]
    return sorted(scored, key=key, reverse=True) + failed


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


def _with_foreign_options(reply: ScoreReply) -> ScoreReply:
    """Name options in items' errors as the request can set them."""
    for result in reply.results:
        if result.error is not None and NATIVE_OPTION in result.error.detail:
            detail = result.error.detail.replace(NATIVE_OPTION, FOREIGN_OPTION)
            result.error = replace(result.error, detail=detail)
    return reply


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
