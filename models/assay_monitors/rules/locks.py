"""Things that were free and have become fixed: channels to each other, behaviour to one habit."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from assay_monitors.moments import Comoments
from assay_monitors.rules.finding import Finding
from assay_monitors.rules.windows import REACH, Tally, pooled, tallies
from assay_monitors.summaries import Point, Summary

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ChannelLock:
    """Two channels that were separate measurements have become the same number.

    One shortcut then pays on both. It tells neither which of the two is gamed nor whether the
    policy is at fault: a change of either scorer does the same. Channels that always agreed are
    never told. Where all that is known of a step is one value for each channel, as when a trainer
    sends means, two that come to agree to 1e-6 count, unless both are zero.

    From: the monitoring rules for Peak-Then-Collapse (arXiv 2605.26037): correlation from 0.98
    over 256 items, below 0.9 before.
    """

    id: ClassVar[str] = "channel_lock"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "which of them is gamed, or whether a scorer changed"

    locked: float = 0.98
    apart: float = 0.9
    agree: float = 1e-6
    least_items: int = 256

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the highest correlation of two channels, 1 where their means agree."""
        pairs = sorted({pair for _, summary in series for pair in summary.pairs})
        closeness = [self._closeness(series, pair) for pair in pairs]
        found: list[Finding | None] = []
        for place in range(len(series)):
            values = {pair: close[place] for pair, close in zip(pairs, closeness, strict=True)}
            found.append(self._finding(values))
        return found

    def _finding(self, values: dict[Pair, float | None]) -> Finding | None:
        known = {pair: value for pair, value in values.items() if value is not None}
        if not known:
            return None
        about = tuple(sorted({name for pair in known for name in pair}))
        evidence = {"pairs": float(len(known))}
        return Finding("critical", max(known.values()), self.locked, about, evidence)

    def _closeness(self, series: Sequence[Point], pair: Pair) -> list[float | None]:
        """The correlation at each point where the pair is locked and was not always."""
        empty = Comoments()
        windows = pooled(
            [summary.pairs.get(pair, empty) for _, summary in series], Comoments, self.least_items
        )
        were_apart = False
        found: list[float | None] = []
        for (_, summary), window in zip(series, windows, strict=True):
            close = None if window is None else window.correlation
            if close is None:
                close = self._agreement(summary, pair)
            locked = close is not None and close >= self.locked
            found.append(close if locked and were_apart else None)
            were_apart = were_apart or (close is not None and close < self.apart)
        return found

    def _agreement(self, summary: Summary, pair: Pair) -> float | None:
        sides = [summary.channels.get(name) for name in pair]
        values = [one.mean for one in sides if one is not None and one.count == 1]
        known = [value for value in values if value is not None]
        if len(known) < 2 or max(map(abs, known)) <= self.agree:
            return None
        return 1.0 if abs(known[0] - known[1]) <= self.agree else 0.0


@dataclass(frozen=True, slots=True)
class BehaviourLock:
    """Nearly every response makes the same number of calls, and it is not the number of before.

    Both are needed: a healthy run may well make three calls each time. It cannot tell a habit that
    was learnt well from one that was learnt badly, only that it is new and has no exceptions. A
    drift so slow that its whole way is longer than the memory of a hundred points escapes it.

    From: the monitoring rules for Peak-Then-Collapse (arXiv 2605.26037): 98 % at one count, mean
    changed by half against its trailing median.
    """

    id: ClassVar[str] = "behaviour_lock"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "a good habit from a bad one"

    share: float = 0.98
    change: float = 0.5
    least_items: int = 64
    least_points: int = 3

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the share of the most frequent number of calls."""
        windows = pooled(tallies([one.calls for _, one in series]), Tally, self.least_items)
        before: deque[float] = deque(maxlen=REACH)
        found: list[Finding | None] = []
        for window in windows:
            mean = None if window is None else _mean(window)
            usual = median(before) if len(before) >= self.least_points else 0.0
            finding = None
            if window is not None and mean is not None:
                finding = self._finding(window, mean, usual)
                # What the lock itself does must not become what is usual.
                if finding is None:
                    before.append(mean)
            found.append(finding)
        return found

    def _finding(self, window: Tally, mean: float, usual: float) -> Finding | None:
        share = window.share(window.top)
        if not usual or share < self.share or abs(mean - usual) < self.change * usual:
            return None
        evidence = {"calls": float(window.top), "mean": mean, "mean_before": usual}
        return Finding("critical", share, self.share, (), evidence)


def _mean(calls: Tally) -> float:
    return sum(int(name) * times for name, times in calls.counts.items()) / calls.count
