"""Rules over the length of responses, and its correlation with the score."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from assay_monitors.moments import Comoments
from assay_monitors.rules.base import Finding, Progress, grade
from assay_monitors.rules.progress import furthest, known_points, pooled, staged
from assay_monitors.rules.rolling import (
    TRAILING_POINTS,
    early_median,
    pool_recent,
    switch_once_known,
)
from assay_monitors.sketch import QuantileSketch
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class LengthCollapse:
    """The share of its length that the median response has lost: 50 % warns, 70 % is critical.

    Measured in characters, else in tokens, against the median of the first five points or of the
    last twenty, whichever is longer. It cannot distinguish an answer that was stripped of its
    reasoning from one that became concise: a wanted shortening to two thirds is silent, one to a
    third is not.

    From: the NLI-checker study (arXiv 2605.25988), whose run without safeguards went from 394 to
    130 characters, and the token-collapse rule's 30 % for what is critical; half is a starting
    value.
    """

    id: ClassVar[str] = "length_collapse"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a stripped answer from a concise one"

    warn: float = 0.5
    critical: float = 0.7
    short: int = 50
    least_items: int = 64

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the share of its length that the median lost."""
        characters = [summary.characters for _, summary in series]
        tokens = [summary.tokens for _, summary in series]
        known = [bool(part.buckets) for part in characters]
        return list(switch_once_known(known, self._findings(characters), self._findings(tokens)))

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the responses of the latest points, then the points, of those needed."""
        return furthest(
            self._progress([summary.characters for _, summary in series]),
            self._progress([summary.tokens for _, summary in series]),
        )

    def _progress(self, parts: Sequence[QuantileSketch]) -> Progress:
        pools = pool_recent(parts, QuantileSketch, self.least_items)
        return staged(pooled(parts, self.least_items), known_points(pools))

    def _findings(self, parts: Sequence[QuantileSketch]) -> list[Finding | None]:
        pools = pool_recent(parts, QuantileSketch, self.least_items)
        medians = [None if pool is None else pool.quantile(0.5) for pool in pools]
        recent: deque[float] = deque(maxlen=TRAILING_POINTS)
        findings: list[Finding | None] = []
        for pool, now, first in zip(pools, medians, early_median(medians), strict=True):
            finding = None
            if pool is not None and now is not None and first is not None:
                finding = self._finding(pool, now, max(first, *recent and [median(recent)]))
            if now is not None and finding is None:
                recent.append(now)
            findings.append(finding)
        return findings

    def _finding(self, pool: QuantileSketch, now: float, before: float) -> Finding | None:
        lost = 1 - now / before if before else 0.0
        severity = grade(lost, self.warn, self.critical)
        if severity is None:
            return None
        return Finding(
            severity,
            value=lost,
            threshold=self.critical if severity == "critical" else self.warn,
            evidence={
                "median": now,
                "median_before": before,
                "p10": pool.quantile(0.1) or 0.0,
                "share_short": pool.share_below(self.short),
            },
        )


@dataclass(frozen=True, slots=True)
class LengthScore:
    """The correlation of score and response length, in either direction: 0.6 warns.

    A sign that the reward depends on length. It cannot distinguish that from length that comes with
    quality, nor from prompts that differ in both: the correlation is over all items, not within
    groups.

    From: the NLI-checker study's cascade (arXiv 2605.25988) names the correlation of the reward
    with length as a detector; it gives no threshold, and 0.6 is a starting value.
    """

    id: ClassVar[str] = "length_score"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "length that pays from length that comes with quality"

    correlation: float = 0.6
    least_items: int = 256

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is Pearson's correlation of length and score."""
        parts = [summary.length_score for _, summary in series]
        pools = pool_recent(parts, Comoments, self.least_items)
        return [None if pool is None else self._finding(pool) for pool in pools]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the scored responses of the latest points, of those that are needed."""
        return pooled([summary.length_score for _, summary in series], self.least_items)

    def _finding(self, pool: Comoments) -> Finding | None:
        value = pool.correlation
        if not value or abs(value) < self.correlation:
            return None
        items = {"items": float(pool.count)}
        return Finding("warn", value=value, threshold=self.correlation, evidence=items)
