"""Rules on known runs: a published collapse, and series that fail as the papers describe."""

import math
import random

import pytest

from assay_monitors.health import DEFAULT_RULES, firing_rules
from assay_monitors.observations import Observation
from assay_monitors.rules.outcome import OutcomeDrawdown
from assay_monitors.summaries import Point, Summary, summarise

from .series import ChangeItem, ChangeTelemetry, Fields, Telemetry, run

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


def steps_by_rule(series: list[Point]) -> dict[str, list[int]]:
    """Return the steps at which each default rule fires."""
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


def test_no_rule_fires_before_the_knowledge_graph_run_collapses() -> None:
    assert steps_by_rule(knowledge_graph()[:3]) == {}


def test_four_rules_fire_where_the_knowledge_graph_run_collapsed() -> None:
    firing = {fired.rule: fired for fired in firing_rules(knowledge_graph()[:4])}
    four = {"outcome_drawdown", "proxy_divergence", "channel_lock", "behaviour_lock"}
    assert firing.keys() == four
    assert {fired.since_step for fired in firing.values()} == {300}
    assert {fired.finding.severity for fired in firing.values()} == {"critical"}
    assert firing["channel_lock"].finding.about == ("quote", "verbs")
    assert firing["outcome_drawdown"].finding.evidence["peak_step"] == 250


def test_a_drawdown_of_the_total_fires_a_hundred_steps_later() -> None:
    series = knowledge_graph()
    findings = OutcomeDrawdown(channel="score").findings(series)
    assert [finding is not None for finding in findings] == [False, False, False, False, True]


def test_the_divergence_ends_when_the_total_falls_too() -> None:
    assert steps_by_rule(knowledge_graph())["proxy_divergence"] == [300]
    assert steps_by_rule(knowledge_graph())["outcome_drawdown"] == [300, 400]


@pytest.mark.parametrize("seed", range(20))
def test_no_rule_fires_in_a_healthy_run(seed: int) -> None:
    series = run(seed)
    assert steps_by_rule(series) == {}
    assert firing_rules(series) == []


@pytest.mark.parametrize("seed", range(3))
def test_no_rule_fires_in_a_healthy_run_with_merged_steps(seed: int) -> None:
    series = run(seed)
    half = len(series) // 2
    merged = []
    for earlier, later in zip(series[:half:2], series[1:half:2], strict=True):
        earlier.summary.merge(later.summary)
        merged.append(Point(later.step, earlier.summary))
    assert steps_by_rule([*merged, *series[half:]]) == {}


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


def truncated(step: int, fields: Fields, source: random.Random) -> None:
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
    ("rule", "change_item", "since_step"),
    [
        ("signal_collapse", neutral, 100),
        ("length_collapse", short, 60),
        ("calls_without_search", without_search, 110),
        ("script_drift", chinese, 140),
        ("null_share", unscored, 90),
        ("truncated_share", truncated, 90),
        ("invalid_share", untagged, 90),
        ("group_degeneracy", all_alike, 90),
        ("saturation", flat_at_the_top, 50),
        ("length_score", longer_is_better, 50),
    ],
)
def test_a_failure_fires_its_rule_at_its_step(
    rule: str, change_item: ChangeItem, since_step: int
) -> None:
    fired = steps_by_rule(run(7, STEPS, items=320, change_item=change_item))
    assert fired.get(rule) == [step for step in STEPS if step >= since_step], fired


def certainty_only(step: int, telemetry: Telemetry) -> None:
    progress = min(1.0, max(0.0, (step - 60) / 20))
    telemetry["entropy_nats"] = 2.4 * (0.08 / 2.4) ** progress
    telemetry["response_tokens_mean"] = 990 * (100 / 990) ** progress


def vote_only(step: int, telemetry: Telemetry) -> None:
    progress = min(1.0, max(0.0, (step - 120) / 20))
    telemetry["majority_share"] = 0.6 + 0.4 * progress
    telemetry["clusters_mean"] = 3 - 2 * progress
    telemetry["entropy_nats"] = 1.2 + 0.8 * progress
    telemetry["response_tokens_mean"] = 500 + 400 * progress


def kl_jump(step: int, telemetry: Telemetry) -> None:
    if step >= 100:
        telemetry["kl"] = 2.0


@pytest.mark.parametrize(
    ("change_telemetry", "rules", "since_step"),
    [
        (certainty_only, {"token_collapse", "policy_entropy"}, 75),
        (vote_only, {"answer_collapse"}, 140),
        (kl_jump, {"kl_jump"}, 100),
    ],
)
def test_telemetry_fires_its_rules_at_its_step(
    change_telemetry: ChangeTelemetry, rules: set[str], since_step: int
) -> None:
    steps = range(0, 180, 5)
    series = run(3, steps, items=8, change_telemetry=change_telemetry)
    fired = [step for step in steps if step >= since_step]
    assert steps_by_rule(series) == dict.fromkeys(rules, fired)


def test_a_step_without_data_leaves_firing_rules_as_they_were() -> None:
    series = [*knowledge_graph()[:4], Point(301, Summary())]
    firing = {fired.rule: fired.since_step for fired in firing_rules(series)}
    assert firing["outcome_drawdown"] == 300


def test_a_failure_fires_no_rule_but_its_own() -> None:
    fired = steps_by_rule(run(7, STEPS, items=320, change_item=neutral))
    assert fired.keys() == {"signal_collapse"}
