"""Health: the worst severity, alerts with the step they began at, channels at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest

from assay_monitors.health import Alert, ChannelHealth, health
from assay_monitors.observations import Observation
from assay_monitors.rules.finding import Finding, Severity
from assay_monitors.summaries import Point, Summary, summarise


@dataclass(frozen=True)
class Scripted:
    """A rule that finds what it was told to."""

    id: ClassVar[str] = "scripted"
    default: ClassVar[bool] = True

    script: tuple[Severity | None, ...]

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        return [severity and Finding(severity, 1.0, 0.5) for severity in self.script]


SERIES = [Point(step, Summary()) for step in (0, 10, 20, 30)]


@pytest.mark.parametrize(
    ("script", "status", "since"),
    [
        ((None, None, None, "warn"), "warn", 30),
        ((None, "warn", "critical", "critical"), "critical", 10),
        (("warn", None, "warn", "warn"), "warn", 20),
        (("critical",) * 4, "critical", 0),
    ],
)
def test_an_alert_begins_where_its_silence_ended(
    script: tuple[Severity | None, ...], status: str, since: int
) -> None:
    found = health(SERIES, [Scripted(script)])
    assert found.status == status
    latest = script[-1]
    assert latest is not None
    assert found.alerts == [Alert("scripted", since, Finding(latest, 1.0, 0.5))]


def test_what_is_over_is_not_told() -> None:
    found = health(SERIES, [Scripted(("critical", "critical", "critical", None))])
    assert (found.status, found.alerts) == ("ok", [])


def test_the_worst_decides() -> None:
    rules = [Scripted((None, None, None, severity)) for severity in ("warn", "critical", "warn")]
    assert health(SERIES, rules).status == "critical"


def test_channels_at_a_glance() -> None:
    first = summarise([Observation(1.0, {"form": 0.5}), Observation(0.0, {"form": 1.0})])
    second = summarise([Observation(0.25, {"form": None}), Observation(0.25, {"form": 0.5})])
    found = health([Point(0, first), Point(500, second)], [])
    assert found.channels["score"] == ChannelHealth(0.25, 0.0, 0.25, 0.5, 0, 0.0)
    assert found.channels["form"] == ChannelHealth(0.5, 0.0, 0.5, 0.75, 0, 0.5)


def test_a_channel_that_is_gone_keeps_its_past() -> None:
    first = summarise([Observation(1.0, {"form": 0.5})])
    found = health([Point(0, first), Point(9, summarise([Observation(1.0)]))], [])
    assert found.channels["form"] == ChannelHealth(None, None, 0.5, 0.5, 0, 1.0)
