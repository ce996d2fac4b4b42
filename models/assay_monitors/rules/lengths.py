"""How long the responses are, and whether the score follows it."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from assay_monitors.moments import Comoments
from assay_monitors.rules.finding import Finding, graded
from assay_monitors.rules.windows import MEMORY, early, once_known, pooled
from assay_monitors.sketch import Sketch
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class LengthCollapse:
    """The typical response has become much shorter than it was, at first or lately.

    Measured in characters, else in tokens, against the median of the first five points or of the
    last twenty, whichever is longer. It cannot tell an answer that was stripped of its reasoning
    from one that became concise: a wanted shortening to two thirds is silent, one to a third is
    not.

    From: the NLI-checker study (arXiv 2605.25988), whose unguarded run went from 394 to 130
    characters, and the token-collapse rule's 30 % for what is critical; half is a starting value.
    """

    id: ClassVar[str] = "length_collapse"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "a stripped answer from a concise one"

    warn: float = 0.5
    critical: float = 0.7
    short: int = 50
    least_items: int = 64

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the share of its length that the median response lost."""
        characters = [summary.characters for _, summary in series]
        tokens = [summary.tokens for _, summary in series]
        known = [bool(part.buckets) for part in characters]
        return list(once_known(known, self._findings(characters), self._findings(tokens)))

    def _findings(self, parts: Sequence[Sketch]) -> list[Finding | None]:
        windows = pooled(parts, Sketch, self.least_items)
        medians = [None if one is None else one.quantile(0.5) for one in windows]
        lately: deque[float] = deque(maxlen=MEMORY)
        found: list[Finding | None] = []
        for window, now, first in zip(windows, medians, early(medians), strict=True):
            finding = None
            if window is not None and now is not None and first is not None:
                finding = self._finding(window, now, max(first, *lately and [median(lately)]))
            if now is not None and finding is None:
                lately.append(now)
            found.append(finding)
        return found

    def _finding(self, window: Sketch, now: float, before: float) -> Finding | None:
        lost = 1 - now / before if before else 0.0
        severity = graded(lost, self.warn, self.critical)
        if severity is None:
            return None
        evidence = {
            "median": now,
            "median_before": before,
            "p10": window.quantile(0.1) or 0.0,
            "share_short": window.share_below(self.short),
        }
        threshold = self.critical if severity == "critical" else self.warn
        return Finding(severity, lost, threshold, (), evidence)


@dataclass(frozen=True, slots=True)
class LengthScore:
    """The score follows the response's length, in either direction.

    A sign that length is what pays. It cannot tell that from length that comes with quality, nor
    from prompts that differ in both: the correlation is over all items, not within groups.

    From: the NLI-checker study's cascade (arXiv 2605.25988) names the correlation of the reward
    with length as a detector; it gives no threshold, and 0.6 is a starting value.
    """

    id: ClassVar[str] = "length_score"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "length that pays from length that comes with quality"

    correlation: float = 0.6
    least_items: int = 256

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is Pearson's correlation of length and score."""
        parts = [summary.length_score for _, summary in series]
        found: list[Finding | None] = []
        for window in pooled(parts, Comoments, self.least_items):
            value = window.correlation if window else None
            strong = value is not None and abs(value) >= self.correlation
            items = {"items": float(window.count)} if window else {}
            found.append(
                Finding("warn", value, self.correlation, (), items) if strong and value else None
            )
        return found
