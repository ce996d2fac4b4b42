"""Health of a series: firing rules with the step they began at, and the state of channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest

from assay_monitors.health import ChannelHealth, FiringRule, channel_health, firing_rules
from assay_monitors.observations import Observation
from assay_monitors.reports import worst
from assay_monitors.rules.base import Finding, Progress, Severity
from assay_monitors.summaries import Point, Summary, summarise


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
