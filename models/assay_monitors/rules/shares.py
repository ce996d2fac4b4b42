"""Findings about the share of items that have something, by bounds that are sure of it."""

from collections.abc import Sequence

from assay_monitors.intervals import Estimate, share_at_any_time, wilson
from assay_monitors.rules.base import Finding, Progress, grade
from assay_monitors.rules.progress import pooled
from assay_monitors.rules.rolling import Tally, pool_early, pool_recent, tallies

MIN_ITEMS = 200
YES, NO = "yes", "no"

Counts = Sequence[tuple[int, int]]
"""By point, the items that have it, and all items."""


def share_findings(counts: Counts, warn: float, critical: float) -> list[Finding | None]:
    """Return findings where the share is surely above a threshold; `value` is the share.

    From 200 items on, the 95 % interval of the fewest latest points must be clear of the threshold.
    Before, that of all items so far, which may be read at every step: in 999 of 1000 runs it never
    fires while the share is below the threshold.
    """
    parts = share_parts(counts)
    rows = zip(
        pool_recent(parts, Tally, MIN_ITEMS), pool_early(parts, Tally, MIN_ITEMS), strict=True
    )
    shares = [
        wilson(pool.counts[YES], pool.count)
        if pool is not None
        else share_at_any_time(early.counts[YES], early.count)
        if early is not None
        else None
        for pool, early in rows
    ]
    return [None if share is None else _finding(share, warn, critical) for share in shares]


def share_parts(counts: Counts) -> list[Tally]:
    """Return counts as tallies of `yes` and `no`, which can be pooled."""
    return tallies([{YES: hits, NO: items - hits} for hits, items in counts])


def share_progress(counts: Counts) -> Progress:
    """Return the progress to the items from which a share is assessed in any case."""
    return pooled(share_parts(counts), MIN_ITEMS)


def _finding(share: Estimate, warn: float, critical: float) -> Finding | None:
    severity = grade(share.low, warn, critical)
    if severity is None:
        return None
    return Finding(
        severity,
        value=share.value,
        threshold=critical if severity == "critical" else warn,
        evidence={"low": share.low, "high": share.high, "items": float(share.n)},
    )
