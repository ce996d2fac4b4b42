"""A checker's verdicts that hardly differ any more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.rules.finding import Finding, graded
from assay_monitors.rules.windows import Tally, pooled, tallies
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class SignalCollapse:
    """One label for nearly every claim, whatever the evidence.

    The reward is then as good as constant. It cannot tell a checker that collapsed from a policy
    whose claims really all deserve that label: score a frozen bank of claims to know. Failures are
    no labels and do not count here.

    From: the NLI-checker study (arXiv 2605.25988), where 97 to 99 % of claims were neutral; the
    share of 95 % over a few hundred claims is that study's reader's proposal.
    """

    id: ClassVar[str] = "signal_collapse"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "a collapsed checker from claims that all deserve one verdict"

    warn: float = 0.95
    critical: float = 0.97
    least_labels: int = 256

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the top label's share; the evidence has the labels' entropy in bits."""
        windows = _labels(series, self.least_labels)
        return [None if one is None else self._finding(one) for one in windows]

    def _finding(self, tally: Tally) -> Finding | None:
        share = tally.share(tally.top)
        severity = graded(share, self.warn, self.critical)
        if severity is None:
            return None
        evidence = {"entropy_bits": entropy_bits(tally), "labels": float(tally.count)}
        threshold = self.critical if severity == "critical" else self.warn
        return Finding(severity, share, threshold, (tally.top,), evidence)


@dataclass(frozen=True, slots=True)
class StrongSupport:
    """The checker supports most of what the policy writes.

    In the NLI-checker study (arXiv 2605.25988) runs with support from about 75 % went on to short
    answers, no searches and another language, runs up to about 60 % did not. These are descriptions
    of few runs with one seed each, and a policy that is simply right looks the same; hence off.
    """

    id: ClassVar[str] = "strong_support"
    default: ClassVar[bool] = False
    cannot_tell: ClassVar[str] = "a lenient checker from a policy that is right"

    warn: float = 0.75
    label: str = "entailment"
    least_labels: int = 256

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the share of supported claims."""
        found: list[Finding | None] = []
        for tally in _labels(series, self.least_labels):
            share = tally.share(self.label) if tally else 0.0
            fires = share >= self.warn
            found.append(Finding("warn", share, self.warn, (self.label,)) if fires else None)
        return found


def entropy_bits(tally: Tally) -> float:
    """Shannon's, of the shares of the names."""
    shares = [times / tally.count for times in tally.counts.values() if times]
    return math.fsum(-share * math.log2(share) for share in shares)


def _labels(series: Sequence[Point], least: int) -> list[Tally | None]:
    return pooled(tallies([summary.labels for _, summary in series]), Tally, least)
