"""A run's health: every rule's answer at its latest step, and its channels at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from assay_monitors.rules.failures import InvalidShare, NullShare, TruncatedShare
from assay_monitors.rules.finding import Finding, Rule
from assay_monitors.rules.groups import DeadChannel, GroupDegeneracy
from assay_monitors.rules.labels import SignalCollapse, StrongSupport
from assay_monitors.rules.language import ScriptDrift
from assay_monitors.rules.lengths import LengthCollapse, LengthScore
from assay_monitors.rules.locks import BehaviourLock, ChannelLock
from assay_monitors.rules.outcome import HALF_LIFE, OutcomeDrawdown, ProxyDivergence
from assay_monitors.rules.saturation import Saturation
from assay_monitors.rules.telemetry import (
    AnswerCollapse,
    CallsWithoutSearch,
    KlJump,
    PolicyEntropy,
    TokenCollapse,
)
from assay_monitors.rules.windows import SCORE, averaged, moments_of
from assay_monitors.summaries import Point

Status = Literal["ok", "warn", "critical"]

RULES: tuple[Rule, ...] = (
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
    InvalidShare(),
    PolicyEntropy(),
    TokenCollapse(),
    AnswerCollapse(),
    KlJump(),
    CallsWithoutSearch(),
)
DEFAULT_RULES = tuple(rule for rule in RULES if rule.default)


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that fires at the latest step, and the step since which it has without a break."""

    rule: str
    since_step: int
    finding: Finding


@dataclass(frozen=True, slots=True)
class ChannelHealth:
    """A channel, or the score, at the latest step: `mean` and `std` of its items, the share of
    items in which it is null; over the run its average, the highest that was, and when.
    """

    mean: float | None
    std: float | None
    average: float
    peak: float
    peak_step: int
    null_share: float


@dataclass(frozen=True, slots=True)
class Health:
    """What is to be told of one series. It reports; whether to stop is the trainer's decision."""

    status: Status
    alerts: list[Alert]
    channels: dict[str, ChannelHealth]


def health(series: Sequence[Point], rules: Sequence[Rule] = DEFAULT_RULES) -> Health:
    """The health of a run's series, points by rising step."""
    found = alerts(series, rules)
    severities = {alert.finding.severity for alert in found}
    status: Status = "ok"
    if severities:
        status = "critical" if "critical" in severities else "warn"
    return Health(status, found, channels(series))


def alerts(series: Sequence[Point], rules: Sequence[Rule] = DEFAULT_RULES) -> list[Alert]:
    """The rules that fire at the latest step, in the order of the rules."""
    return [
        Alert(rule.id, since, latest)
        for rule, since, latest in judged(series, rules)
        if latest is not None
    ]


def judged(
    series: Sequence[Point], rules: Sequence[Rule] = DEFAULT_RULES
) -> list[tuple[Rule, int, Finding | None]]:
    """Each rule's answer at the latest of one point or more, and the step since which it fires."""
    answers = [(rule, rule.findings(series)) for rule in rules] if series else []
    return [(rule, _since(series, findings), findings[-1]) for rule, findings in answers]


def channels(series: Sequence[Point]) -> dict[str, ChannelHealth]:
    """The score and every channel that was ever seen."""
    seen = sorted({name for _, summary in series for name in summary.channels})
    return {name: known for name in (SCORE, *seen) if (known := _channel(series, name)) is not None}


def _channel(series: Sequence[Point], name: str) -> ChannelHealth | None:
    averages = averaged(series, name, HALF_LIFE)
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


def _since(series: Sequence[Point], findings: Sequence[Finding | None]) -> int:
    step = series[-1].step
    for point, finding in zip(reversed(series), reversed(findings), strict=True):
        if finding is None:
            break
        step = point.step
    return step
