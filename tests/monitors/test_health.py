"""Health of a series: firing rules with the step they began at, and the state of channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest

from assay_monitors.health import (
    RULES,
    ChannelHealth,
    FiringRule,
    channel_health,
    evaluate_rules,
    firing_rules,
    overall_status,
)
from assay_monitors.observations import Observation
from assay_monitors.reports import worst
from assay_monitors.rules.base import Finding, Progress, Rule, Severity
from assay_monitors.rules.groups import ConstantScore
from assay_monitors.summaries import Point, Summary, summarise

from .series import run


@dataclass(frozen=True)
class ScriptedRule:
    """A rule with scripted findings."""

    id: ClassVar[str] = "scripted"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "anything"

    script: tuple[Severity | None, ...]
    seen_and_needed: tuple[int, int] = (1, 1)

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        return [
            severity and Finding(severity, value=1.0, threshold=0.5) for severity in self.script
        ]

    def progress(self, series: Sequence[Point]) -> Progress:
        return Progress(*self.seen_and_needed, "items")


SERIES = [Point(step, Summary()) for step in (0, 10, 20, 30)]


@pytest.mark.parametrize(
    ("script", "since_step"),
    [
        ((None, None, None, "warn"), 30),
        ((None, "warn", "critical", "critical"), 10),
        (("warn", None, "warn", "warn"), 20),
        (("critical",) * 4, 0),
    ],
)
def test_a_rule_fires_since_the_step_after_its_last_silence(
    script: tuple[Severity | None, ...], since_step: int
) -> None:
    latest = script[-1]
    assert latest is not None
    assert firing_rules(SERIES, [ScriptedRule(script)]) == [
        FiringRule("scripted", since_step, Finding(latest, value=1.0, threshold=0.5))
    ]


def test_a_rule_that_is_silent_at_the_latest_step_does_not_fire() -> None:
    rule = ScriptedRule(("critical", "critical", "critical", None))
    assert firing_rules(SERIES, [rule]) == []


@pytest.mark.parametrize(
    ("script", "seen", "state"),
    [
        ("warn", 0, "fired"),
        (None, 256, "quiet"),
        (None, 255, "waiting"),
        (None, 0, "not_fed"),
    ],
)
def test_a_rule_is_fired_quiet_waiting_or_not_fed(
    script: Severity | None, seen: int, state: str
) -> None:
    (evaluation,) = evaluate_rules(SERIES, [ScriptedRule((None, None, None, script), (seen, 256))])
    assert evaluation.state == state


SCORED = [Point(0, summarise([Observation(1.0)]))]
FIRED, QUIET = ScriptedRule(("warn",)), ScriptedRule((None,))
WAITING, NOT_FED = ScriptedRule((None,), (1, 2)), ScriptedRule((None,), (0, 2))


@pytest.mark.parametrize(
    ("series", "rules", "status"),
    [
        (SCORED, [QUIET, QUIET, WAITING], "ok"),
        (SCORED, [QUIET, WAITING], "waiting"),
        (SCORED, [QUIET, *[NOT_FED] * 9], "ok"),
        (SCORED, [NOT_FED], "waiting"),
        (SCORED, [FIRED, *[WAITING] * 9], "warn"),
        (SERIES[:1], [QUIET], "waiting"),
        (SCORED, [QUIET, QUIET, ConstantScore()], "waiting"),
    ],
)
def test_a_series_is_ok_only_where_most_of_its_rules_have_decided(
    series: list[Point], rules: list[Rule], status: str
) -> None:
    assert overall_status(series, evaluate_rules(series, rules)) == status


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_waits_for_its_input_and_is_quiet_once_it_has_enough(rule: Rule) -> None:
    (nothing,) = evaluate_rules(SERIES[:1], [rule])
    assert nothing.state == "not_fed"
    series = run(4, items=96)
    (latest,) = evaluate_rules(series, [rule])
    assert latest.state == ("not_fed" if rule.id == "clipped_share" else "quiet")
    (first,) = evaluate_rules(series[:1], [rule])
    assert first.progress.seen <= first.progress.needed
    assert first.state in ("waiting", "quiet", "not_fed")


def test_the_worst_status_is_critical_and_waiting_without_any() -> None:
    assert worst(["warn", "critical", "warn"]) == "critical"
    assert worst(["waiting", "ok"]) == "ok"
    assert worst([]) == "waiting"


def test_channel_health_is_of_the_latest_step_and_the_run() -> None:
    first = summarise([Observation(1.0, {"form": 0.5}), Observation(0.0, {"form": 1.0})])
    second = summarise([Observation(0.25, {"form": None}), Observation(0.25, {"form": 0.5})])
    channels = channel_health([Point(0, first), Point(500, second)])
    assert channels["score"] == ChannelHealth(
        mean=0.25, std=0.0, average=0.25, peak=0.5, peak_step=0, null_share=0.0
    )
    assert channels["form"] == ChannelHealth(
        mean=0.5, std=0.0, average=0.5, peak=0.75, peak_step=0, null_share=0.5
    )


def test_a_channel_that_disappears_keeps_its_average_and_peak() -> None:
    first = summarise([Observation(1.0, {"form": 0.5})])
    channels = channel_health([Point(0, first), Point(9, summarise([Observation(1.0)]))])
    assert channels["form"] == ChannelHealth(
        mean=None, std=None, average=0.5, peak=0.5, peak_step=0, null_share=1.0
    )
