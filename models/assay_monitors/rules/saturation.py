"""Rule over a reward that has flattened out at the top of its range."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from assay_monitors.moments import Moments
from assay_monitors.rules.base import Finding, Progress
from assay_monitors.rules.progress import known_points, pooled, staged
from assay_monitors.rules.rolling import early_median, pool_recent
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class Saturation:
    """The mean score in the top 10 % of the range ever seen, with at most 25 % of the early spread.

    In the NLI-checker study's run without safeguards (arXiv 2605.25988) this was the first sign,
    some ten steps before the answers shortened. It cannot distinguish an exploited reward from a
    solved task, and a single outlier widens the range that it measures against. The study gives no
    thresholds; these are starting values.
    """

    id: ClassVar[str] = "saturation"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "an exploited reward from a solved task"

    top: float = 0.1
    spread: float = 0.25
    least_items: int = 256

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the standard deviation as a share of the early one."""
        parts = [summary.score for _, summary in series]
        pools = pool_recent(parts, Moments, self.least_items)
        before = early_median([None if pool is None else pool.std for pool in pools])
        lows = list(accumulate([part.low for part in parts], min))
        highs = list(accumulate([part.high for part in parts], max))
        rows = zip(pools, before, lows, highs, strict=True)
        return [self._finding(*row) for row in rows]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the scores of the latest points, then the points, of those that are needed."""
        parts = [summary.score for _, summary in series]
        pools = pool_recent(parts, Moments, self.least_items)
        return staged(pooled(parts, self.least_items), known_points(pools))

    def _finding(
        self, pool: Moments | None, before: float | None, low: float, high: float
    ) -> Finding | None:
        if pool is None or not before or high <= low:
            return None
        mean, std = pool.mean or 0.0, pool.std or 0.0
        distance = (high - mean) / (high - low)
        spread = std / before
        if distance > self.top or spread > self.spread:
            return None
        return Finding(
            "warn",
            value=spread,
            threshold=self.spread,
            about=("score",),
            evidence={"from_top": distance, "mean": mean, "std": std},
        )
