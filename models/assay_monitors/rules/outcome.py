"""Rules over the outcome channel: it falls, alone or while the total does not show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.rules.base import Finding, Progress, grade
from assay_monitors.rules.progress import known_points, least
from assay_monitors.rules.rolling import SCORE, Average, exponential_averages, moments_of
from assay_monitors.summaries import Point

HALF_LIFE = 5.0
MIN_STANDARD_ERRORS = 3.0


@dataclass(frozen=True, slots=True)
class OutcomeDrawdown:
    """The fall from its peak of the channel that says whether an answer is right: 25 % warns, 50 %
    is critical.

    A fast stop, not a forecast: the channel means of the run it was made for show nothing before
    the fall. It cannot distinguish a broken policy from harder prompts or a changed grader. A fall
    within three standard errors of sampling does not fire, and an outcome that was never positive
    is not evaluated. A step's single value passes for a mean, which has no such error, so that the
    rule is no use where steps have an item or two.

    From: the monitoring rules for Peak-Then-Collapse (arXiv 2605.26037): 25 % warns, 50 % is
    critical, half-life five steps.
    """

    id: ClassVar[str] = "outcome_drawdown"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a broken policy from harder prompts"

    channel: str = "outcome"
    warn: float = 0.25
    critical: float = 0.5
    half_life: float = HALF_LIFE

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the fall as a share of the peak."""
        averages = exponential_averages(series, self.channel, self.half_life)
        return [None if average is None else self._finding(average) for average in averages]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the points with an outcome, of the two that can be compared."""
        return _points_with(series, self.channel)

    def _finding(self, average: Average) -> Finding | None:
        severity = grade(average.drawdown, self.warn, self.critical)
        if severity is None or not average.has_fallen_by(MIN_STANDARD_ERRORS):
            return None
        return Finding(
            severity,
            value=average.drawdown,
            threshold=self.critical if severity == "critical" else self.warn,
            about=(self.channel,),
            evidence=_peak_evidence(average),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyDivergence:
    """An outcome 30 % below its peak while the total reward is within 5 % of its own.

    The total is then paid by its other channels. An alarm on the total alone stays silent here. It
    cannot distinguish the gamed channel from the others, and needs a channel that is named as the
    outcome.

    From: the monitoring rules for Peak-Then-Collapse (arXiv 2605.26037), whose total was at its
    highest at the dead checkpoint: a fall of 30 % with the total within 5 % of its peak.
    """

    id: ClassVar[str] = "proxy_divergence"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "the gamed channel from the others"

    channel: str = "outcome"
    total: str = SCORE
    fall: float = 0.3
    near: float = 0.05
    half_life: float = HALF_LIFE

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the outcome's fall as a share of its peak."""
        outcomes = exponential_averages(series, self.channel, self.half_life)
        totals = exponential_averages(series, self.total, self.half_life)
        return [self._finding(*both) for both in zip(outcomes, totals, strict=True)]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the points with an outcome, and with a total, of two that can be compared."""
        return least(_points_with(series, self.channel), _points_with(series, self.total))

    def _finding(self, outcome: Average | None, total: Average | None) -> Finding | None:
        if outcome is None or total is None:
            return None
        total_fall = total.peak - total.mean
        if outcome.drawdown < self.fall or total_fall > self.near * abs(total.peak):
            return None
        if not outcome.has_fallen_by(MIN_STANDARD_ERRORS):
            return None
        totals = {"total": total.mean, "total_peak": total.peak}
        return Finding(
            "critical",
            value=outcome.drawdown,
            threshold=self.fall,
            about=(self.channel, self.total),
            evidence={**_peak_evidence(outcome), **totals},
        )


def _points_with(series: Sequence[Point], name: str) -> Progress:
    return known_points([moments_of(summary, name).mean for _, summary in series], 2)


def _peak_evidence(average: Average) -> dict[str, float]:
    return {
        "average": average.mean,
        "peak": average.peak,
        "peak_step": float(average.peak_step),
    }
