"""A reward that has flattened out at the top of its range."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from assay_monitors.moments import Moments
from assay_monitors.rules.finding import Finding
from assay_monitors.rules.windows import early, pooled
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class Saturation:
    """The scores lie near the highest ever seen, and much closer together than at first.

    In the unguarded run of the NLI-checker study (arXiv 2605.25988) this was the first sign, some
    ten steps before the answers shortened. It cannot tell a reward that is exploited from a task
    that is solved, and a single outlier widens the range that it measures against. The study gives
    no thresholds; these are starting values.
    """

    id: ClassVar[str] = "saturation"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "an exploited reward from a solved task"

    top: float = 0.1
    spread: float = 0.25
    least_items: int = 256

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the scores' standard deviation as a share of what it was at first."""
        parts = [summary.score for _, summary in series]
        windows = pooled(parts, Moments, self.least_items)
        before = early([None if one is None else one.std for one in windows])
        lows = list(accumulate([one.low for one in parts], min))
        highs = list(accumulate([one.high for one in parts], max))
        places = zip(windows, before, lows, highs, strict=True)
        return [self._finding(*place) for place in places]

    def _finding(
        self, window: Moments | None, before: float | None, low: float, high: float
    ) -> Finding | None:
        if window is None or not before or high <= low:
            return None
        distance = (high - (window.mean or 0.0)) / (high - low)
        spread = (window.std or 0.0) / before
        if distance > self.top or spread > self.spread:
            return None
        evidence = {"from_top": distance, "mean": window.mean or 0.0, "std": window.std or 0.0}
        return Finding("warn", spread, self.spread, ("score",), evidence)
