"""Rules over the verdicts of a checker."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.rules.base import Finding, Progress, grade
from assay_monitors.rules.progress import pooled
from assay_monitors.rules.rolling import Tally, pool_recent, tallies
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class SignalCollapse:
    """The share of the most frequent label, whatever the evidence: 95 % warns, 97 % is critical.

    The reward is then as good as constant. It cannot distinguish a checker that collapsed from a
    policy whose claims really all deserve that label: score a frozen bank of claims to know.
    Failures are not labels and do not count here.

    From: the NLI-checker study (arXiv 2605.25988), where 97 to 99 % of claims were neutral; the
    share of 95 % over a few hundred claims is that study's reader's proposal.
    """

    id: ClassVar[str] = "signal_collapse"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a collapsed checker from claims that all deserve one verdict"

    warn: float = 0.95
    critical: float = 0.97
    least_labels: int = 256

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the top label's share.

        Their evidence has the labels' entropy in bits.
        """
        pools = _pool_labels(series, self.least_labels)
        return [None if tally is None else self._finding(tally) for tally in pools]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the labels of the latest points, of those that are needed."""
        return pooled(_label_tallies(series), self.least_labels, "labels")

    def _finding(self, tally: Tally) -> Finding | None:
        share = tally.share(tally.top)
        severity = grade(share, self.warn, self.critical)
        if severity is None:
            return None
        return Finding(
            severity,
            value=share,
            threshold=self.critical if severity == "critical" else self.warn,
            about=(tally.top,),
            evidence={"entropy_bits": entropy_bits(tally), "labels": float(tally.count)},
        )


@dataclass(frozen=True, slots=True)
class StrongSupport:
    """The share of claims that the checker supports: 75 % warns.

    In the NLI-checker study (arXiv 2605.25988) runs with support from about 75 % went on to short
    answers, no searches and another language, runs up to about 60 % did not. These are descriptions
    of few runs with one seed each. It cannot distinguish a lenient checker from a policy that is
    right; hence it is off by default.
    """

    id: ClassVar[str] = "strong_support"
    is_default: ClassVar[bool] = False
    limits: ClassVar[str] = "a lenient checker from a policy that is right"

    warn: float = 0.75
    label: str = "entailment"
    least_labels: int = 256

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the share of supported claims."""
        pools = _pool_labels(series, self.least_labels)
        return [None if tally is None else self._finding(tally) for tally in pools]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the labels of the latest points, of those that are needed."""
        return pooled(_label_tallies(series), self.least_labels, "labels")

    def _finding(self, tally: Tally) -> Finding | None:
        share = tally.share(self.label)
        if share < self.warn:
            return None
        return Finding("warn", value=share, threshold=self.warn, about=(self.label,))


def entropy_bits(tally: Tally) -> float:
    """Return Shannon's entropy of the shares of the names."""
    shares = [times / tally.count for times in tally.counts.values() if times]
    return math.fsum(-share * math.log2(share) for share in shares)


def _pool_labels(series: Sequence[Point], min_count: int) -> list[Tally | None]:
    return pool_recent(_label_tallies(series), Tally, min_count)


def _label_tallies(series: Sequence[Point]) -> list[Tally]:
    return tallies([summary.labels for _, summary in series])
