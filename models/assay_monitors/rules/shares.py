"""Findings about the share of items that have something, by bounds that are sure of it."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from assay_monitors.intervals import Estimate, share_at_any_time, wilson
from assay_monitors.rules.base import Finding, Progress, Unit, grade

MIN_ITEMS = 200

Counts = Sequence[tuple[int, int]]
"""By point, the items that have it, and all items."""


class PooledCount(NamedTuple):
    """The items of the latest points that have it, all of them, and whether they are enough."""

    hits: int
    items: int
    is_enough: bool


def pool_counts(counts: Counts, min_items: int) -> list[PooledCount]:
    """Add up, at each point, the fewest latest points that hold enough items, as `pool_recent`.

    Where all points so far hold fewer, those are added up.
    """
    hits = [0, *accumulate(hit for hit, _ in counts)]
    items = [0, *accumulate(total for _, total in counts)]
    pools, start = [], 0
    for end in range(1, len(items)):
        while start + 1 < end and items[end] - items[start + 1] >= min_items:
            start += 1
        total = items[end] - items[start]
        pools.append(PooledCount(hits[end] - hits[start], total, total >= min_items))
    return pools


def share_findings(counts: Counts, warn: float, critical: float) -> list[Finding | None]:
    """Return findings where the share is surely above a threshold; `value` is the share.

    From 200 items on, the 95 % interval of the fewest latest points must be clear of the threshold.
    Before, that of all items so far, which may be read at every step: in 999 of 1000 runs it never
    fires while the share is below the threshold.
    """
    return [
        _finding(
            (wilson if is_enough else share_at_any_time)(hits, items), warn=warn, critical=critical
        )
        for hits, items, is_enough in pool_counts(counts, MIN_ITEMS)
    ]


def pooled_shares(counts: Counts) -> list[float | None]:
    """Return the share of the latest points, None where they hold fewer than 200 items."""
    return [
        hits / items if is_enough else None
        for hits, items, is_enough in pool_counts(counts, MIN_ITEMS)
    ]


def share_progress(counts: Counts, needed: int = MIN_ITEMS, unit: Unit = "items") -> Progress:
    """Return the progress to the items from which a share is assessed in any case."""
    seen = sum(items for _, items in counts)
    return Progress(min(seen, needed), needed, unit)


def _finding(share: Estimate, *, warn: float, critical: float) -> Finding | None:
    severity = grade(share.low, warn, critical)
    if severity is None:
        return None
    return Finding(
        severity,
        value=share.value,
        threshold=critical if severity == "critical" else warn,
        evidence={"low": share.low, "high": share.high, "items": float(share.n)},
    )
