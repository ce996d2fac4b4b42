"""Which alerts are told, once each."""

from dataclasses import replace
from typing import Any

from assay_monitors.alerts import AlertBook, AlertChange
from assay_monitors.reports import GoldHealth, GoldMeasure, RuleState, RunHealth, StreamHealth
from assay_monitors.trigger import Advice

LIMIT = "why: the error codes can"


def rule(severity: Any, since: int | None = 3) -> RuleState:
    return RuleState("null_share", severity, since, 0.5, 0.2, ["score"], {"n": 1.0}, {}, LIMIT)


def health(
    run: str, *rules: RuleState, step: int = 5, advice: Advice | None = None, told: bool = False
) -> RunHealth:
    stream = StreamHealth("code@2", "train", step, "ok", list(rules), {})
    measure = GoldMeasure(step, None, None, None, None, None, 1.0)
    gold = [GoldHealth("tests", [measure], advice)] if advice or told else []
    return RunHealth(run, "ok", [stream], gold)


def said(changes: list[AlertChange]) -> list[tuple[str, str, str, int]]:
    return [(one.kind, one.alert.rule, one.alert.severity, one.alert.step) for one in changes]


def test_a_rule_is_told_when_it_begins_and_when_it_ends() -> None:
    book = AlertBook()
    assert book.changes(health("r", rule(None, None))) == []
    (begun,) = book.changes(health("r", rule("warn")))
    assert said([begun]) == [("firing", "null_share", "warn", 5)]
    assert (begun.alert.model, begun.alert.split) == ("code@2", "train")
    assert (begun.alert.since_step, begun.alert.value) == (3, 0.5)
    assert book.changes(health("r", rule("warn"), step=6)) == []
    ended = book.changes(health("r", rule(None, None), step=7))
    assert said(ended) == [("resolved", "null_share", "warn", 7)]
    assert book.changes(health("r", rule(None, None), step=8)) == []


def test_a_rule_that_becomes_critical_is_told_again() -> None:
    book = AlertBook()
    book.changes(health("r", rule("warn")))
    worse = book.changes(health("r", rule("critical")))
    assert said(worse) == [("firing", "null_share", "critical", 5)]


def test_advice_of_gold_is_an_alert_too() -> None:
    book = AlertBook()
    advice = Advice(5, "stop", ("drawdown",), 2)
    (begun,) = book.changes(health("r", advice=advice))
    assert said([begun]) == [("firing", "gold", "critical", 5)]
    assert begun.alert.about == ["tests", "stop", "drawdown"]
    milder = replace(advice, action="reset_reference")
    assert said(book.changes(health("r", advice=milder))) == [("firing", "gold", "warn", 5)]
    assert said(book.changes(health("r", step=6, told=True))) == [("resolved", "gold", "warn", 6)]


def test_ids_are_of_the_change_and_not_of_who_tells_it() -> None:
    (one,) = AlertBook().changes(health("r", rule("warn")))
    (same,) = AlertBook().changes(health("r", rule("warn"), step=9))
    others = [
        *AlertBook().changes(health("s", rule("warn"))),
        *AlertBook().changes(health("r", rule("critical"))),
        *AlertBook().changes(health("r", rule("warn", 4))),
    ]
    assert one.id == same.id
    assert len({one.id, *[other.id for other in others]}) == 4


def test_it_remembers_so_many_runs_and_tells_of_the_forgotten_again() -> None:
    book = AlertBook(runs=2)
    for run in ("a", "b", "a", "c"):
        book.changes(health(run, rule("warn")))
    assert book.changes(health("a", rule("warn"))) == []
    assert len(book.changes(health("b", rule("warn")))) == 1
