"""Assembly of a reply: from the outcomes of a request's inputs to its results, in request order."""

import math
from collections.abc import Sequence

from assay.batching.entry import Outcome
from assay.errors import AssayError, NonFiniteScore
from assay.scoring.prepare import catch_item_errors
from assay.scoring.prepared_cache import PreparedItems
from assay.types import ItemFailure, ItemResult, Source, Timing, Usage
from assay_models.base import Item, Options, Raw, RewardModel, Score

SOURCES: tuple[Source, ...] = ("computed", "shared", "cache")
"""The source of an item with several inputs: the first of these that any of the inputs has."""


def assemble_results(
    model: RewardModel,
    entries: Sequence[PreparedItems],
    *,
    outcomes: Sequence[Outcome],
    options: Options,
    substitute: float | None,
) -> list[ItemResult]:
    """Return one result for each item, in request order.

    Args:
        model: the model, whose `finish` returns the scores.
        entries: the prepared items of the request.
        outcomes: the outcomes of the entries' inputs, entry by entry.
        options: the request's options.
        substitute: the score served for items that fail, which are flagged; None for no score.
    """
    results: list[ItemResult] = []
    start = 0
    for entry in entries:
        end = start + len(entry.keys)
        scores = _finish(model, entry, outcomes[start:end], options)
        source = _source(outcomes[start:end])
        start = end
        for position, (index, item) in enumerate(zip(entry.indices, entry.items, strict=True)):
            score = scores if isinstance(scores, ItemFailure) else _check_finite(scores[position])
            tokens = 0 if position else entry.tokens
            result = (
                _failed_result(index, item, failure=score, tokens=tokens, substitute=substitute)
                if isinstance(score, ItemFailure)
                else _scored_result(index, item, score=score, tokens=tokens, source=source)
            )
            results.append(result)
    if model.sees == "group":
        results.sort(key=lambda result: result.index)
    return results


def usage_of(results: Sequence[ItemResult]) -> Usage:
    """Return the cost of a request, from its results."""
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


def timing_of(outcomes: Sequence[Outcome], prepare: float, total: float) -> Timing:
    """Return the milliseconds of each phase, from seconds."""
    queue = max([outcome.queue_seconds for outcome in outcomes], default=0.0)
    predict = max([outcome.predict_seconds for outcome in outcomes], default=0.0)
    return Timing(
        prepare_ms=round(prepare * 1e3, 3),
        queue_ms=round(queue * 1e3, 3),
        predict_ms=round(predict * 1e3, 3),
        total_ms=round(total * 1e3, 3),
    )


def _finish(
    model: RewardModel, entry: PreparedItems, outcomes: Sequence[Outcome], options: Options
) -> Sequence[Score] | ItemFailure:
    if isinstance(entry.prepared, ItemFailure):
        return entry.prepared
    raws: list[Raw] = []
    for outcome in outcomes:
        if isinstance(outcome.value, AssayError):
            return ItemFailure(outcome.value.code, outcome.value.detail)
        raws.append(outcome.value)
    return catch_item_errors(model.finish, entry.prepared, raws, options)


def _check_finite(score: Score) -> Score | ItemFailure:
    raw = 0.0 if score.raw is None else score.raw
    numbers = (score.score, raw, *score.channels.values())
    if all(map(math.isfinite, numbers)):
        return score
    return ItemFailure(NonFiniteScore.code, "the score is not a finite number")


def _source(outcomes: Sequence[Outcome]) -> Source:
    if len(outcomes) == 1:
        return outcomes[0].source
    sources = {outcome.source for outcome in outcomes}
    return next((source for source in SOURCES if source in sources), "rule")


def _failed_result(
    index: int, item: Item, *, failure: ItemFailure, tokens: int, substitute: float | None
) -> ItemResult:
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
        error=failure,
    )


def _scored_result(
    index: int, item: Item, *, score: Score, tokens: int, source: Source
) -> ItemResult:
    return ItemResult(
        index=index,
        id=item.id,
        group=item.group,
        status="ok",
        score=score.score,
        raw=score.raw,
        channels=dict(score.channels),
        flags=list(score.flags),
        tokens=tokens,
        source=source,
        details=dict(score.details),
        error=None,
    )
