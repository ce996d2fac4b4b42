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
"""The source of an item with several inputs is the first of these that any of them has."""


def assemble_results(
    model: RewardModel,
    entries: Sequence[PreparedItems],
    outcomes: Sequence[Outcome],
    options: Options,
    substitute: float | None,
) -> list[ItemResult]:
    """Return one result for each item, in request order.

    Args:
        model: whose `finish` makes the scores.
        entries: the prepared items of the request.
        outcomes: of the entries' inputs, entry by entry.
        options: the request's.
        substitute: is served, flagged, for items that fail.
    """
    results: list[ItemResult] = []
    start = 0
    for entry in entries:
        end = start + len(entry.keys)
        scores = _finished(model, entry, outcomes[start:end], options)
        source = _source(outcomes[start:end])
        start = end
        for place, (index, item) in enumerate(zip(entry.indices, entry.items, strict=True)):
            score = scores if isinstance(scores, ItemFailure) else _finite(scores[place])
            tokens = 0 if place else entry.tokens
            results.append(_result(index, item, score, tokens, source, substitute))
    if model.sees == "group":
        results.sort(key=lambda result: result.index)
    return results


def usage_of(results: Sequence[ItemResult]) -> Usage:
    """Return what the request cost."""
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


def _finished(
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


def _finite(score: Score) -> Score | ItemFailure:
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


def _result(
    index: int,
    item: Item,
    score: Score | ItemFailure,
    tokens: int,
    source: Source,
    substitute: float | None,
) -> ItemResult:
    if isinstance(score, ItemFailure):
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
            error=score,
        )
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
