"""The outcome falls, alone or beneath a total that does not show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.rules.finding import Finding, graded
from assay_monitors.rules.windows import SCORE, Average, averaged
from assay_monitors.summaries import Point

HALF_LIFE = 5.0
ERRORS = 3.0


@dataclass(frozen=True, slots=True)
class OutcomeDrawdown:
    """The channel that says whether an answer is right has fallen from its peak.

    A fast stop, not a forecast: the channel means of the run it was made for show nothing before
    the fall. It cannot tell a broken policy from harder prompts or a changed grader. A fall within
    three standard errors of sampling is not told, and an outcome that was never positive is not
    judged.

    From: the monitoring rules for Peak-Then-Collapse (arXiv 2605.26037): 25 % warns, 50 % is
    critical, half-life five steps.
    """

    id: ClassVar[str] = "outcome_drawdown"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "a broken policy from harder prompts"

    channel: str = "outcome"
    warn: float = 0.25
    critical: float = 0.5
    half_life: float = HALF_LIFE

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the fall as a share of the peak."""
        averages = averaged(series, self.channel, self.half_life)
        return [None if one is None else self._finding(one) for one in averages]

    def _finding(self, average: Average) -> Finding | None:
        severity = graded(average.fall, self.warn, self.critical)
        if severity is None or not average.surely_fallen(ERRORS):
            return None
        threshold = self.critical if severity == "critical" else self.warn
        return Finding(severity, average.fall, threshold, (self.channel,), _peak(average))


@dataclass(frozen=True, slots=True)
class ProxyDivergence:
    """The outcome has fallen while the total reward is as high as ever.

    The total is then paid by its other channels. An alarm on the total alone stays silent here. It
    cannot tell which channel is gamed, and needs one that is named as the outcome.

    From: the monitoring rules for Peak-Then-Collapse (arXiv 2605.26037), whose total was at its
    highest at the dead checkpoint: a fall of 30 % with the total within 5 % of its peak.
    """

    id: ClassVar[str] = "proxy_divergence"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "which channel is gamed"

    channel: str = "outcome"
    total: str = SCORE
    fall: float = 0.3
    near: float = 0.05
    half_life: float = HALF_LIFE

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the outcome's fall as a share of its peak."""
        outcomes = averaged(series, self.channel, self.half_life)
        totals = averaged(series, self.total, self.half_life)
        return [self._finding(*both) for both in zip(outcomes, totals, strict=True)]

    def _finding(self, outcome: Average | None, total: Average | None) -> Finding | None:
        if outcome is None or total is None:
            return None
        below = total.peak - total.mean
        if outcome.fall < self.fall or below > self.near * abs(total.peak):
            return None
        if not outcome.surely_fallen(ERRORS):
            return None
        evidence = {**_peak(outcome), "total": total.mean, "total_peak": total.peak}
        return Finding("critical", outcome.fall, self.fall, (self.channel, self.total), evidence)


def _peak(average: Average) -> dict[str, float]:
    return {
        "average": average.mean,
        "peak": average.peak,
        "peak_step": float(average.peak_step),
    }
