"""Rules over quantities that varied and no longer do: channels, and the number of calls."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from assay_monitors.moments import Comoments
from assay_monitors.rules.base import Finding, Progress
from assay_monitors.rules.progress import furthest, known_points, pooled, staged
from assay_monitors.rules.rolling import Tally, pool_recent, tallies
from assay_monitors.summaries import Point, Summary

MAX_USUAL_POINTS = 100
"""Points whose median is the usual number of calls."""

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ChannelLock:
    """Two channels with a correlation of at least 0.98, which was below 0.9 before.

    One exploit then raises both. It cannot distinguish the gamed channel from the other, nor a
    policy at fault from a change of either scorer. Channels that always agreed do not fire. Where
    only one value of each channel is known for a step, as when a trainer sends means, two that come
    to agree to 1e-6 count as locked, unless both are zero.

    From: the monitoring rules for Peak-Then-Collapse (arXiv 2605.26037): correlation of at
    least 0.98 over 256 items, below 0.9 before.
    """

    id: ClassVar[str] = "channel_lock"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "the gamed channel from the other, or gaming from a changed scorer"

    locked: float = 0.98
    apart: float = 0.9
    agree: float = 1e-6
    least_items: int = 256

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the highest correlation, 1 where means agree."""
        pairs = sorted({pair for _, summary in series for pair in summary.pairs})
        locked = [self._locked_correlations(series, pair) for pair in pairs]
        findings: list[Finding | None] = []
        for index in range(len(series)):
            values = {pair: row[index] for pair, row in zip(pairs, locked, strict=True)}
            findings.append(self._finding(values))
        return findings

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the items of the pair of channels that has most, of those that are needed."""
        pairs = sorted({pair for _, summary in series for pair in summary.pairs})
        empty = Comoments()
        parts = [[summary.pairs.get(pair, empty) for _, summary in series] for pair in pairs]
        return furthest(*[pooled(part, self.least_items) for part in parts or [[empty]]])

    def _finding(self, values: dict[Pair, float | None]) -> Finding | None:
        known = {pair: value for pair, value in values.items() if value is not None}
        if not known:
            return None
        return Finding(
            "critical",
            value=max(known.values()),
            threshold=self.locked,
            about=tuple(sorted({name for pair in known for name in pair})),
            evidence={"pairs": float(len(known))},
        )

    def _locked_correlations(self, series: Sequence[Point], pair: Pair) -> list[float | None]:
        """Return the correlation at each point where the pair is locked and was apart before."""
        empty = Comoments()
        pools = pool_recent(
            [summary.pairs.get(pair, empty) for _, summary in series], Comoments, self.least_items
        )
        were_apart = False
        locked: list[float | None] = []
        for (_, summary), pool in zip(series, pools, strict=True):
            value = None if pool is None else pool.correlation
            if value is None:
                value = self._mean_agreement(summary, pair)
            is_locked = value is not None and value >= self.locked
            locked.append(value if is_locked and were_apart else None)
            were_apart = were_apart or (value is not None and value < self.apart)
        return locked

    def _mean_agreement(self, summary: Summary, pair: Pair) -> float | None:
        sides = [summary.channels.get(name) for name in pair]
        means = [side.mean for side in sides if side is not None and side.count == 1]
        known = [mean for mean in means if mean is not None]
        if len(known) < 2 or max(map(abs, known)) <= self.agree:
            return None
        return 1.0 if abs(known[0] - known[1]) <= self.agree else 0.0


@dataclass(frozen=True, slots=True)
class BehaviourLock:
    """The same number of tool calls in 98 % of responses, with a mean that changed by half.

    Both are needed: a healthy run may well make three calls each time. It cannot distinguish a
    habit that was learnt well from one that was learnt badly, only that it is new and has no
    exceptions. It misses a drift so slow that the trailing hundred points have already adapted
    to it.

    From: the monitoring rules for Peak-Then-Collapse (arXiv 2605.26037): 98 % at one count, mean
    changed by half against its trailing median.
    """

    id: ClassVar[str] = "behaviour_lock"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a good habit from a bad one"

    share: float = 0.98
    change: float = 0.5
    least_items: int = 64
    least_points: int = 3

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the share of the most frequent number of calls."""
        calls = tallies([summary.calls for _, summary in series])
        before: deque[float] = deque(maxlen=MAX_USUAL_POINTS)
        findings: list[Finding | None] = []
        for pool in pool_recent(calls, Tally, self.least_items):
            finding = None
            if pool is not None:
                mean = _mean_calls(pool)
                usual = median(before) if len(before) >= self.least_points else 0.0
                finding = self._finding(pool, mean, usual)
                # A locked point must not become part of the baseline.
                if finding is None:
                    before.append(mean)
            findings.append(finding)
        return findings

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the items with calls in the latest points, then the points, of those needed."""
        calls = tallies([summary.calls for _, summary in series])
        pools = pool_recent(calls, Tally, self.least_items)
        return staged(pooled(calls, self.least_items), known_points(pools, self.least_points + 1))

    def _finding(self, pool: Tally, mean: float, usual: float) -> Finding | None:
        share = pool.share(pool.top)
        if not usual or share < self.share or abs(mean - usual) < self.change * usual:
            return None
        return Finding(
            "critical",
            value=share,
            threshold=self.share,
            evidence={"calls": float(pool.top), "mean": mean, "mean_before": usual},
        )


def _mean_calls(calls: Tally) -> float:
    return sum(int(name) * times for name, times in calls.counts.items()) / calls.count
