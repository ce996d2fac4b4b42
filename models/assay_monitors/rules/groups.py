"""Rules over groups and channels that no longer distinguish one item from another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.intervals import items_to_exclude, share_at_any_time
from assay_monitors.moments import Moments
from assay_monitors.rules.base import Finding, Progress
from assay_monitors.rules.progress import least, pooled
from assay_monitors.rules.rolling import (
    SCORE,
    merge_all,
    moments_of,
    pool_recent,
    switch_once_known,
)
from assay_monitors.rules.shares import Counts, PooledCount, pool_counts, share_progress
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class GroupDegeneracy:
    """The share of groups whose items all score the same on every channel: 80 % warns, and surely
    above 90 % is critical.

    Such a group gives a group-relative trainer no gradient. It cannot distinguish a solved task
    from a hopeless one, nor either from a policy that writes one answer: the mean score can. Groups
    that the trainer filtered out before scoring are not seen.

    Sparse rewards leave many groups without variance, so that it warns from 32 groups and is
    critical from 111 that are all alike: with 999 chances of 1000 it never is at the start of a run
    with 10 % of other groups.

    From: the zero-variance rule for group rewards, more than 80 % (ZPPO, arXiv 2606.18216, shows
    what such groups do to batch statistics); critical above 90 % is a starting value.
    """

    id: ClassVar[str] = "group_degeneracy"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a solved task from a hopeless one"

    warn: float = 0.8
    critical: float = 0.9
    least_groups: int = 32
    surely_groups: int = 256
    resolution: float = 0.0

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the share of degenerate groups."""
        counts = self._counts(series)
        few, many = (pool_counts(counts, n) for n in (self.least_groups, self.surely_groups))
        return [
            self._critical(most) or self._warning(some)
            for some, most in zip(few, many, strict=True)
        ]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the groups of the latest points, of those that are needed."""
        return share_progress(self._counts(series), self.least_groups, "groups")

    def _counts(self, series: Sequence[Point]) -> Counts:
        return [summary.groups.count_zero_variance(self.resolution) for _, summary in series]

    def _critical(self, pool: PooledCount) -> Finding | None:
        share = share_at_any_time(pool.hits, pool.items)
        if share.low < self.critical:
            return None
        evidence = {"groups": float(share.n), "low": share.low}
        return Finding("critical", value=share.value, threshold=self.critical, evidence=evidence)

    def _warning(self, pool: PooledCount) -> Finding | None:
        share = pool.hits / pool.items if pool.is_enough else 0.0
        if share < self.warn:
            return None
        evidence = {"groups": float(pool.items)}
        return Finding("warn", value=share, threshold=self.warn, evidence=evidence)


@dataclass(frozen=True, slots=True)
class ConstantScore:
    """A score that has one and the same value for all items: critical, once less than 5 % of the
    items surely have another.

    With 999 chances of 1000 it never fires at the start of a run in which 5 % of the rewards differ
    from the others: that takes 242 items, and as many groups where items come in groups, since the
    items of a group share a prompt. Such a reward teaches nothing. It cannot distinguish a broken
    scorer from a solved or a hopeless task.

    No source gives a threshold; a twentieth is a starting value.
    """

    id: ClassVar[str] = "constant_score"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a broken scorer from a solved or a hopeless task"

    other: float = 0.05
    resolution: float = 0.0

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the range of the scores."""
        pools = pool_recent(_score_ranges(series), _ScoreRange, items_to_exclude(self.other))
        return [None if pool is None else self._finding(pool) for pool in pools]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the items of the latest points, of those needed: two that differ are enough."""
        needed, parts = items_to_exclude(self.other), _score_ranges(series)
        waiting = pooled(parts, needed)
        whole = merge_all(parts, _ScoreRange)
        return Progress(needed, needed, "items") if whole.width > self.resolution else waiting

    def _finding(self, pool: "_ScoreRange") -> Finding | None:
        if pool.width > self.resolution:
            return None
        return Finding(
            "critical",
            value=pool.width,
            threshold=self.resolution,
            about=(SCORE,),
            evidence={"score": pool.low, "items": float(pool.count)},
        )


@dataclass(slots=True)
class _ScoreRange:
    """The number of independent scores, a group counting as one, and their extremes."""

    count: int = 0
    low: float = math.inf
    high: float = -math.inf

    def merge(self, other: "_ScoreRange") -> None:
        self.count += other.count
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def width(self) -> float:
        return self.high - self.low


def _score_ranges(series: Sequence[Point]) -> list[_ScoreRange]:
    return [
        _ScoreRange(round(score.count / groups.mean_size), score.low, score.high)
        for score, groups in ((summary.score, summary.groups) for _, summary in series)
    ]


@dataclass(frozen=True, slots=True)
class DeadChannel:
    """A channel that had one and the same value for 1000 items in a row.

    It catches a gate that never opens or a parser that never finds its fields. It cannot
    distinguish a defect from a requirement that the policy always meets. A model without channels
    is evaluated by its score.

    From: the dead-channel rule for group rewards, whose case is a gated channel in the public
    code of Peak-Then-Collapse (arXiv 2605.26037).
    """

    id: ClassVar[str] = "dead_channel"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a defect from a requirement that is always met"

    least_items: int = 1000
    resolution: float = 0.0

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the widest range of the channels they are about."""
        names = sorted({name for _, summary in series for name in summary.channels})
        known = [bool(summary.channels) for _, summary in series]
        by_channel, by_score = self._findings(series, names), self._findings(series, [SCORE])
        return list(switch_once_known(known, by_channel, by_score))

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the items of the latest points, of those needed: two that differ are enough."""
        names = sorted({name for _, summary in series for name in summary.channels}) or [SCORE]
        return least(*[self._progress(series, name) for name in names])

    def _progress(self, series: Sequence[Point], name: str) -> Progress:
        parts = [moments_of(summary, name) for _, summary in series]
        whole = merge_all(parts, Moments)
        if whole.high - whole.low > self.resolution:
            return Progress(self.least_items, self.least_items, "items")
        return pooled(parts, self.least_items)

    def _findings(self, series: Sequence[Point], names: Sequence[str]) -> list[Finding | None]:
        pools = {
            name: pool_recent(
                [moments_of(summary, name) for _, summary in series], Moments, self.least_items
            )
            for name in names
        }
        return [
            self._finding({name: moments[place] for name, moments in pools.items()})
            for place in range(len(series))
        ]

    def _finding(self, pools: dict[str, Moments | None]) -> Finding | None:
        ranges = {name: pool.high - pool.low for name, pool in pools.items() if pool is not None}
        dead = tuple(name for name, width in ranges.items() if width <= self.resolution)
        if not dead:
            return None
        return Finding(
            "warn",
            value=max(ranges[name] for name in dead),
            threshold=self.resolution,
            about=dead,
            evidence={"items": float(self.least_items)},
        )
