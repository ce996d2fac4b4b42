"""Changes of alerts: each returned once."""

from dataclasses import replace
from typing import Any

from assay_monitors.advice import Advice
from assay_monitors.alerts import AlertChange, AlertTracker
from assay_monitors.reports import (
    GoldHealth,
    GoldMeasure,
    RuleProgress,
    RuleState,
    RunHealth,
    StreamHealth,
)


def rule(severity: Any, since: int | None = 3) -> RuleState:
    return RuleState(
        rule="null_share",
        state="quiet" if severity is None else "fired",
        severity=severity,
        progress=RuleProgress(200, 200, "items"),
        since_step=since,
        value=0.5,
        threshold=0.2,
        about=["score"],
        evidence={"n": 1.0},
        thresholds={},
        limits="anything",
    )


def health(
    run: str,
    *rules: RuleState,
    step: int = 5,
    advice: Advice | None = None,
    has_gold: bool = False,
) -> RunHealth:
    stream = StreamHealth(
        model="code@2", split="train", step=step, status="ok", rules=list(rules), channels={}
    )
    measure = GoldMeasure(
        step=step,
        proxy=None,
        gold=None,
        accuracy=None,
        loss=None,
        rank=None,
        gradient_norm=1.0,
    )
    gold = [GoldHealth("tests", [measure], advice)] if advice or has_gold else []
    return RunHealth(run, "ok", [stream], gold)


def brief(changes: list[AlertChange]) -> list[tuple[str, str, str, int]]:
    return [
        (change.kind, change.alert.rule, change.alert.severity, change.alert.step)
        for change in changes
    ]


def test_a_rule_has_one_change_when_it_begins_and_one_when_it_ends() -> None:
    tracker = AlertTracker()
    assert tracker.update(health("r", rule(None, None))) == []
    (begun,) = tracker.update(health("r", rule("warn")))
    assert brief([begun]) == [("firing", "null_share", "warn", 5)]
    assert (begun.alert.model, begun.alert.split) == ("code@2", "train")
    assert (begun.alert.since_step, begun.alert.value) == (3, 0.5)
    assert tracker.update(health("r", rule("warn"), step=6)) == []
    ended = tracker.update(health("r", rule(None, None), step=7))
    assert brief(ended) == [("resolved", "null_share", "warn", 7)]
    assert tracker.update(health("r", rule(None, None), step=8)) == []


def test_a_rule_that_becomes_critical_has_another_change() -> None:
    tracker = AlertTracker()
    tracker.update(health("r", rule("warn")))
    worse = tracker.update(health("r", rule("critical")))
    assert brief(worse) == [("firing", "null_share", "critical", 5)]


def test_advice_of_a_gold_source_is_an_alert() -> None:
    tracker = AlertTracker()
    advice = Advice(5, "stop", ("drawdown",), 2)
    (begun,) = tracker.update(health("r", advice=advice))
    assert brief([begun]) == [("firing", "gold", "critical", 5)]
    assert begun.alert.about == ["tests", "stop", "drawdown"]
    milder = replace(advice, action="reset_reference")
    assert brief(tracker.update(health("r", advice=milder))) == [("firing", "gold", "warn", 5)]
    ended = tracker.update(health("r", step=6, has_gold=True))
    assert brief(ended) == [("resolved", "gold", "warn", 6)]


def test_an_id_depends_on_the_change_and_not_on_the_server() -> None:
    (first,) = AlertTracker().update(health("r", rule("warn")))
    (same,) = AlertTracker().update(health("r", rule("warn"), step=9))
    others = [
        *AlertTracker().update(health("s", rule("warn"))),
        *AlertTracker().update(health("r", rule("critical"))),
        *AlertTracker().update(health("r", rule("warn", 4))),
    ]
    assert first.id == same.id
    assert len({first.id, *[other.id for other in others]}) == 4


def test_the_least_recently_updated_run_is_forgotten() -> None:
    tracker = AlertTracker(max_runs=2)
    for run in ("a", "b", "a", "c"):
        tracker.update(health(run, rule("warn")))
    assert tracker.update(health("a", rule("warn"))) == []
    assert len(tracker.update(health("b", rule("warn")))) == 1


def test_the_alerts_of_a_run_that_is_no_longer_kept_end() -> None:
    tracker = AlertTracker()
    tracker.update(health("r", rule("warn")))
    assert brief(tracker.forget("r")) == [("resolved", "null_share", "warn", 5)]
    assert (tracker.forget("r"), tracker.forget("unknown")) == ([], [])


def test_the_alerts_of_a_renamed_run_go_on_under_its_new_name() -> None:
    tracker = AlertTracker()
    tracker.update(health("old", rule("warn")))
    tracker.rename("old", "new")
    assert tracker.forget("old") == []
    assert tracker.update(health("new", rule("warn"), step=6)) == []
    (ended,) = tracker.update(health("new", rule(None, None), step=7))
    assert (ended.kind, ended.alert.run) == ("resolved", "new")
