"""Health of a series: each rule's result at the latest step, and the state of each channel."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from assay_monitors.rules.base import Finding, Progress, Rule
from assay_monitors.rules.failures import EmptyShare, InvalidShare, NullShare, TruncatedShare
from assay_monitors.rules.groups import ConstantScore, DeadChannel, GroupDegeneracy
from assay_monitors.rules.labels import SignalCollapse, StrongSupport
from assay_monitors.rules.language import ScriptDrift
from assay_monitors.rules.lengths import LengthCollapse, LengthScore
from assay_monitors.rules.lock_in import BehaviourLock, ChannelLock
from assay_monitors.rules.outcome import HALF_LIFE, OutcomeDrawdown, ProxyDivergence
from assay_monitors.rules.rolling import SCORE, exponential_averages, moments_of
from assay_monitors.rules.saturation import Saturation
from assay_monitors.rules.telemetry import (
    AnswerCollapse,
    CallsWithoutSearch,
    ClippedShare,
    KlJump,
    PolicyEntropy,
    TokenCollapse,
)
from assay_monitors.summaries import Point

Status = Literal["waiting", "ok", "warn", "critical"]
State = Literal["fired", "quiet", "waiting", "not_fed"]

RULES: tuple[Rule, ...] = (
    ConstantScore(),
    GroupDegeneracy(),
    DeadChannel(),
    SignalCollapse(),
    StrongSupport(),
    Saturation(),
    OutcomeDrawdown(),
    ProxyDivergence(),
    ChannelLock(),
    BehaviourLock(),
    LengthCollapse(),
    LengthScore(),
    ScriptDrift(),
    NullShare(),
    TruncatedShare(),
    EmptyShare(),
    InvalidShare(),
    PolicyEntropy(),
    TokenCollapse(),
    AnswerCollapse(),
    KlJump(),
    CallsWithoutSearch(),
    ClippedShare(),
)
# A reward that fails in one of these ways from its first step must never appear to be healthy.
REQUIRED = (ConstantScore.id, GroupDegeneracy.id, SignalCollapse.id, NullShare.id)
DEFAULT_RULES = tuple(rule for rule in RULES if rule.is_default)


class Evaluation(NamedTuple):
    """A rule's result at the latest step: `finding` is None where it does not fire.

    `since_step` is the step since which it has fired without a break.
    """

    rule: Rule
    since_step: int
    finding: Finding | None
    progress: Progress

    @property
    def state(self) -> State:
        """Whether it fired, is quiet with all that it needs, waits for more, or got nothing."""
        if self.finding is not None:
            return "fired"
        if self.progress.is_complete:
            return "quiet"
        return "waiting" if self.progress.seen else "not_fed"


@dataclass(frozen=True, slots=True)
class FiringRule:
    """A rule that fires at the latest step, and the step since which it has without a break."""

    rule: str
    since_step: int
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelHealth:
    """The state of a channel, or of the score, at the latest step.

    `mean` and `std` are of the step's items, `null_share` is the share of them in which the channel
    is null. `average` is the moving average over the run, `peak` its highest value, and `peak_step`
    the step of that.
    """

    mean: float | None
    std: float | None
    average: float
    peak: float
    peak_step: int
    null_share: float


def evaluate_rules(
    series: Sequence[Point], rules: Sequence[Rule] = DEFAULT_RULES
) -> list[Evaluation]:
    """Return each rule's result at the latest point, points by rising step; [] without points."""
    results = [(rule, rule.findings(series)) for rule in rules] if series else []
    return [
        Evaluation(rule, _since_step(series, findings), findings[-1], rule.progress(series))
        for rule, findings in results
    ]


def overall_status(series: Sequence[Point], evaluations: Sequence[Evaluation]) -> Status:
    """Return the worst severity, else whether the series is assessed: `ok`, or `waiting`.

    It is assessed once more rules are quiet than wait, and none of `REQUIRED` waits. Rules not fed
    count for neither. A series without items, of telemetry alone, never is: most rules are
    about items.
    """
    severities = [found.finding.severity for found in evaluations if found.finding is not None]
    if severities:
        return "critical" if "critical" in severities else "warn"
    has_items = any(summary.items for _, summary in series)
    states = Counter(found.state for found in evaluations)
    required = {found.state for found in evaluations if found.rule.id in REQUIRED}
    is_assessed = states["quiet"] > states["waiting"] and "waiting" not in required
    return "ok" if has_items and is_assessed else "waiting"


def firing_rules(
    series: Sequence[Point], rules: Sequence[Rule] = DEFAULT_RULES
) -> list[FiringRule]:
    """Return the rules that fire at the latest step, in the order of the rules."""
    return [
        FiringRule(rule.id, since_step, finding)
        for rule, since_step, finding, _ in evaluate_rules(series, rules)
        if finding is not None
    ]


def channel_health(series: Sequence[Point]) -> dict[str, ChannelHealth]:
    """Return the state of the score and of every channel that was ever recorded."""
    seen = sorted({name for _, summary in series for name in summary.channels})
    return {name: known for name in (SCORE, *seen) if (known := _channel(series, name)) is not None}


def _channel(series: Sequence[Point], name: str) -> ChannelHealth | None:
    averages = exponential_averages(series, name, HALF_LIFE)
    if not averages or (latest := averages[-1]) is None:
        return None
    summary = series[-1].summary
    moments = moments_of(summary, name)
    null_share = 1 - min(1.0, moments.count / summary.items) if summary.items else 0.0
    return ChannelHealth(
        mean=moments.mean,
        std=moments.std,
        average=latest.mean,
        peak=latest.peak,
        peak_step=latest.peak_step,
        null_share=null_share,
    )


def _since_step(series: Sequence[Point], findings: Sequence[Finding | None]) -> int:
    step = series[-1].step
    for point, finding in zip(reversed(series), reversed(findings), strict=True):
        if finding is None:
            break
        step = point.step
    return step
