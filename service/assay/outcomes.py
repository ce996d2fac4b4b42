"""From the rows of a request to its results, in request order. Pure, but for what it logs."""

import logging
import math
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple, ParamSpec, TypeVar

from assay.cache import Ready
from assay.errors import AssayError, NonFiniteScore
from assay.results import ItemFailure, ItemResult, Source, Timing, Usage
from assay_models.base import Item, ItemError, Options, Raw, RewardModel, Score

logger = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

ORDER: tuple[Source, ...] = ("computed", "shared", "cache")


class Row(NamedTuple):
    """What became of one input, and where it came from."""

    value: Raw | AssayError
    source: Source
    queue_seconds: float = 0.0
    predict_seconds: float = 0.0


class Case(NamedTuple):
    """The items that are prepared together: one, or a group for a model that sees groups. Of items
    that were prepared before, only `id` and `group` are there.
    """

    indices: tuple[int, ...]
    items: tuple[Item, ...]
    ready: Ready | ItemFailure


def guarded(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | ItemFailure:
    """What the step gives, or why its item has no score."""
    try:
        return step(*args, **kwargs)
    except ItemError as error:
        return ItemFailure(error.code, error.detail)
    except Exception as error:  # noqa: BLE001 any text may upset a tokenizer or a template; only its own item may suffer
        frame = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        logger.error("%s in %s, line %s of %s", kind, frame.name, frame.lineno, frame.filename)
        return ItemFailure("item_failed", f"the model raised {kind} on this item")


def results_of(
    model: RewardModel,
    cases: Sequence[Case],
    rows: Sequence[Row],
    options: Options,
    substitute: float | None,
) -> list[ItemResult]:
    """One result for each item, in request order.

    Args:
        model: whose `finish` makes the scores.
        cases: of the request.
        rows: of the cases' inputs, case by case.
        options: the request's.
        substitute: is served, marked, for items that fail.
    """
    placed: list[ItemResult] = []
    start = 0
    for case in cases:
        tokens, end = 0, start
        outcome: Sequence[Score] | ItemFailure
        if isinstance(case.ready, ItemFailure):
            outcome = case.ready
        else:
            tokens, end = case.ready.tokens, start + len(case.ready.keys)
            outcome = _finished(model, case.ready, rows[start:end], options)
        source = _source(rows[start:end])
        start = end
        for place, (index, item) in enumerate(zip(case.indices, case.items, strict=True)):
            one = outcome if isinstance(outcome, ItemFailure) else _finite(outcome[place])
            placed.append(_result(index, item, one, 0 if place else tokens, source, substitute))
    if model.sees == "group":
        placed.sort(key=lambda result: result.index)
    return placed


def usage_of(results: Sequence[ItemResult]) -> Usage:
    """What the request cost."""
    sources = [result.source for result in results]
    return Usage(
        items=len(results),
        tokens=sum([result.tokens for result in results]),
        computed=sources.count("computed"),
        cached=sources.count("cache"),
        shared=sources.count("shared"),
        rule=sources.count("rule"),
        failed=sources.count(None),
    )


def timing_of(rows: Sequence[Row], prepare: float, total: float) -> Timing:
    """How long it took, from seconds."""
    return Timing(
        prepare_ms=round(prepare * 1e3, 3),
        queue_ms=round(max([row.queue_seconds for row in rows], default=0.0) * 1e3, 3),
        predict_ms=round(max([row.predict_seconds for row in rows], default=0.0) * 1e3, 3),
        total_ms=round(total * 1e3, 3),
    )


def _finished(
    model: RewardModel, ready: Ready, rows: Sequence[Row], options: Options
) -> Sequence[Score] | ItemFailure:
    raws: list[Raw] = []
    for row in rows:
        if isinstance(row.value, AssayError):
            return ItemFailure(row.value.code, row.value.detail)
        raws.append(row.value)
    return guarded(model.finish, ready.prepared, raws, options)


def _finite(score: Score) -> Score | ItemFailure:
    raw = 0.0 if score.raw is None else score.raw
    numbers = (score.score, raw, *score.channels.values())
    if all(map(math.isfinite, numbers)):
        return score
    return ItemFailure(NonFiniteScore.code, "the score is not a finite number")


def _source(rows: Sequence[Row]) -> Source:
    if len(rows) == 1:
        return rows[0].source
    sources = {row.source for row in rows}
    return next((source for source in ORDER if source in sources), "rule")


def _result(
    index: int,
    item: Item,
    outcome: Score | ItemFailure,
    tokens: int,
    source: Source,
    substitute: float | None,
) -> ItemResult:
    if isinstance(outcome, ItemFailure):
        return ItemResult(
            index=index,
            id=item.id,
            group=item.group,
            status="error",
            score=substitute,
            raw=None,
            channels={},
            flags=[] if substitute is None else ["substituted"],
            tokens=tokens,
            source=None,
            details={},
            error=outcome,
        )
    return ItemResult(
        index=index,
        id=item.id,
        group=item.group,
        status="ok",
        score=outcome.score,
        raw=outcome.raw,
        channels=dict(outcome.channels),
        flags=list(outcome.flags),
        tokens=tokens,
        source=source,
        details=dict(outcome.details),
        error=None,
    )
