"""Runs that are known: a published collapse, and streams that do what the papers saw."""

import math
import random

import pytest

from assay_monitors.health import DEFAULT_RULES, alerts, health
from assay_monitors.observations import Observation
from assay_monitors.rules.outcome import OutcomeDrawdown
from assay_monitors.summaries import Point, Summary, summarise

from .streams import Alter, Fields, Telemetry, Tell, run

# Peak-Then-Collapse (arXiv 2605.26037), its main run as published by its authors:
# step, outcome, verbs, quote, total, share of the most frequent number of calls, that number.
KNOWLEDGE_GRAPH = (
    (50, 0.397, 0.377, 0.052, 0.301, 1.0, 3),
    (200, 0.405, 0.484, 0.088, 0.366, 1.0, 3),
    (250, 0.410, 0.491, 0.104, 0.374, 1.0, 3),
    (300, 0.001, 0.514, 0.514, 0.385, 0.9986, 1),
    (400, 0.008, 0.090, 0.092, 0.070, 1.0, 1),
)


def knowledge_graph() -> list[Point]:
    points = []
    for step, outcome, verbs, quote, total, share, calls in KNOWLEDGE_GRAPH:
        means = {"outcome": outcome, "verbs": verbs, "quote": quote}
        summary = summarise([Observation(total, means)])
        summary.calls = {str(calls): round(share * 10_000), "2": round((1 - share) * 10_000)}
        points.append(Point(step, summary))
    return points


def fired(series: list[Point]) -> dict[str, list[int]]:
    """The steps at which each rule fires, as they would have been told at the time."""
    return {
        rule.id: steps
        for rule in DEFAULT_RULES
        if (
            steps := [
                point.step
                for point, finding in zip(series, rule.findings(series), strict=True)
                if finding is not None
            ]
        )
    }


def test_the_knowledge_graph_run_fires_nothing_until_it_collapses() -> None:
    assert fired(knowledge_graph()[:3]) == {}


def test_the_knowledge_graph_run_fires_four_rules_where_it_collapsed() -> None:
    told = {alert.rule: alert for alert in alerts(knowledge_graph()[:4])}
    four = {"outcome_drawdown", "proxy_divergence", "channel_lock", "behaviour_lock"}
    assert told.keys() == four
    assert {alert.since_step for alert in told.values()} == {300}
    assert {alert.finding.severity for alert in told.values()} == {"critical"}
    assert told["channel_lock"].finding.about == ("quote", "verbs")
    assert told["outcome_drawdown"].finding.evidence["peak_step"] == 250


def test_the_total_alone_would_have_been_told_a_hundred_steps_later() -> None:
    series = knowledge_graph()
    found = OutcomeDrawdown(channel="score").findings(series)
    assert [finding is not None for finding in found] == [False, False, False, False, True]


def test_the_divergence_ends_when_the_total_dies_too() -> None:
    assert fired(knowledge_graph())["proxy_divergence"] == [300]
    assert fired(knowledge_graph())["outcome_drawdown"] == [300, 400]


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_fires_nothing(seed: int) -> None:
    series = run(seed)
    assert fired(series) == {}
    assert health(series).status == "ok"


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_run_that_was_thinned_fires_nothing(seed: int) -> None:
    series = run(seed)
    half = len(series) // 2
    thinned = []
    for one, later in zip(series[:half:2], series[1:half:2], strict=True):
        one.summary.merge(later.summary)
        thinned.append(Point(later.step, one.summary))
    assert fired([*thinned, *series[half:]]) == {}


STEPS = range(0, 180, 10)


def neutral(step: int, fields: Fields, source: random.Random) -> None:
    if step >= 100:
        labels = ("neutral", "entailment", "contradiction")
        fields["labels"] = {source.choices(labels, (0.98, 0.01, 0.01))[0]: 1}


def short(step: int, fields: Fields, source: random.Random) -> None:
    if step >= 60:
        fields["characters"] = round(source.lognormvariate(math.log(130), 0.35))


def without_search(step: int, fields: Fields, source: random.Random) -> None:
    if step >= 110:
        fields["calls"] = source.choices((0, 1), (0.98, 0.02))[0]


def chinese(step: int, fields: Fields, source: random.Random) -> None:
    if step >= 140:
        fields["script"] = source.choices(("han", "latin"), (0.644, 0.356))[0]


def unscored(step: int, fields: Fields, source: random.Random) -> None:
    if step >= 90 and source.random() < 0.3:
        fields["score"], fields["channels"] = None, {}


def cut(step: int, fields: Fields, source: random.Random) -> None:
    if step >= 90 and source.random() < 0.3:
        fields["flags"] = ["truncated"]


def untagged(step: int, fields: Fields, source: random.Random) -> None:
    if step >= 90:
        fields["invalid"] = source.random() < 0.5


def all_alike(step: int, fields: Fields, source: random.Random) -> None:
    if step >= 90 and source.random() < 0.99:
        fields["score"], fields["channels"] = 0.15, {"outcome": 0.0, "form": 1.0}


def flat_at_the_top(step: int, fields: Fields, source: random.Random) -> None:
    if step >= 50 and fields["score"] is not None:
        fields["score"] = 1 - 0.02 * source.random()


def longer_is_better(step: int, fields: Fields, source: random.Random) -> None:
    if step >= 50 and fields["score"] is not None:
        fields["score"] = min(1.0, fields["characters"] / 1000 + source.gauss(0, 0.05))


@pytest.mark.parametrize(
    ("rule", "alter", "since"),
    [
        ("signal_collapse", neutral, 100),
        ("length_collapse", short, 60),
        ("calls_without_search", without_search, 110),
        ("script_drift", chinese, 140),
        ("null_share", unscored, 90),
        ("truncated_share", cut, 90),
        ("invalid_share", untagged, 90),
        ("group_degeneracy", all_alike, 90),
        ("saturation", flat_at_the_top, 50),
        ("length_score", longer_is_better, 50),
    ],
)
def test_a_failure_fires_its_rule_at_its_step(rule: str, alter: Alter, since: int) -> None:
    told = fired(run(7, STEPS, items=320, alter=alter))
    assert told.get(rule) == [step for step in STEPS if step >= since], told


def certainty_only(step: int, telemetry: Telemetry) -> None:
    way = min(1.0, max(0.0, (step - 60) / 20))
    telemetry["entropy_nats"] = 2.4 * (0.08 / 2.4) ** way
    telemetry["response_tokens_mean"] = 990 * (100 / 990) ** way


def vote_only(step: int, telemetry: Telemetry) -> None:
    way = min(1.0, max(0.0, (step - 120) / 20))
    telemetry["majority_share"] = 0.6 + 0.4 * way
    telemetry["clusters_mean"] = 3 - 2 * way
    telemetry["entropy_nats"] = 1.2 + 0.8 * way
    telemetry["response_tokens_mean"] = 500 + 400 * way


def leap(step: int, telemetry: Telemetry) -> None:
    if step >= 100:
        telemetry["kl"] = 2.0


@pytest.mark.parametrize(
    ("tell", "told", "since"),
    [
        (certainty_only, {"token_collapse", "policy_entropy"}, 75),
        (vote_only, {"answer_collapse"}, 140),
        (leap, {"kl_jump"}, 100),
    ],
)
def test_telemetry_fires_its_rule_at_its_step(tell: Tell, told: set[str], since: int) -> None:
    steps = range(0, 180, 5)
    series = run(3, steps, items=8, tell=tell)
    assert fired(series) == {rule: [step for step in steps if step >= since] for rule in told}


def test_a_silent_step_leaves_an_alert_as_it_was() -> None:
    series = [*knowledge_graph()[:4], Point(301, Summary())]
    kept = {alert.rule: alert.since_step for alert in alerts(series)}
    assert kept["outcome_drawdown"] == 300


def test_a_failure_stays_the_failure_it_is() -> None:
    told = fired(run(7, STEPS, items=320, alter=neutral))
    assert told.keys() == {"signal_collapse"}
