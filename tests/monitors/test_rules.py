"""The rules one by one: where they fire, where they are silent, and that none uses later points."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_monitors.health import DEFAULT_RULES, RULES, channel_health, firing_rules
from assay_monitors.observations import Observation
from assay_monitors.rules.base import Rule
from assay_monitors.rules.failures import InvalidShare, NullShare
from assay_monitors.rules.groups import ConstantScore, DeadChannel, GroupDegeneracy
from assay_monitors.rules.labels import SignalCollapse, StrongSupport
from assay_monitors.rules.lengths import LengthCollapse
from assay_monitors.rules.lock_in import BehaviourLock, ChannelLock
from assay_monitors.rules.outcome import OutcomeDrawdown, ProxyDivergence
from assay_monitors.rules.telemetry import (
    AnswerCollapse,
    ClippedShare,
    KlJump,
    PolicyEntropy,
)
from assay_monitors.summaries import Point, Summary, summarise

from .series import observations

TELEMETRY = ("entropy_nats", "kl", "response_tokens_mean", "majority_share", "no_search_share")


@st.composite
def histories(draw: st.DrawFn) -> list[Point]:
    steps = sorted(draw(st.sets(st.integers(0, 500), max_size=8)))
    points = []
    for step in steps:
        summary = summarise(
            draw(st.lists(observations, max_size=4)) * draw(st.sampled_from([1, 99]))
        )
        summary.add_telemetry(
            draw(st.dictionaries(st.sampled_from(TELEMETRY), st.floats(0, 10), max_size=3))
        )
        points.append(Point(step, summary))
    return points


@given(histories(), st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_no_finding_depends_on_later_points(series: list[Point], cut: int) -> None:
    for rule in RULES:
        assert rule.findings(series[:cut]) == rule.findings(series)[:cut], rule.id


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_without_data_no_rule_fires(rule: Rule) -> None:
    assert rule.findings([]) == []
    assert rule.findings([Point(3, Summary())]) == [None]


def test_a_series_without_points_has_no_firing_rules_and_no_channels() -> None:
    assert firing_rules([]) == []
    assert channel_health([]) == {}


def steps(*summaries: Summary) -> list[Point]:
    return [Point(step, summary) for step, summary in enumerate(summaries)]


def fires(rule: Rule, *summaries: Summary) -> list[bool]:
    return [finding is not None for finding in rule.findings(steps(*summaries))]


def outcomes(right: int, of: int, *, group: int = 1, score: float | None = None) -> Summary:
    return summarise(
        Observation(
            number % of / of < right / of if score is None else score,
            {"outcome": float(number // group * group % of < right)},
            group=str(number // group) if group > 1 else None,
        )
        for number in range(of)
    )


def test_a_fall_of_a_quarter_warns_and_of_half_is_critical() -> None:
    series = [
        Point(step, outcomes(right, 1000))
        for step, right in ((0, 500), (100, 380), (200, 370), (300, 240))
    ]
    severities = [finding and finding.severity for finding in OutcomeDrawdown().findings(series)]
    assert severities == [None, None, "warn", "critical"]


def test_a_fall_within_sampling_error_does_not_fire() -> None:
    assert fires(OutcomeDrawdown(half_life=0.1), outcomes(12, 24), outcomes(8, 24))[1] is False
    assert fires(OutcomeDrawdown(half_life=0.1), outcomes(1200, 2400), outcomes(800, 2400))[1]


def test_the_items_of_one_prompt_count_as_one_for_sampling_error() -> None:
    alone = outcomes(300, 600), outcomes(200, 600)
    together = outcomes(300, 600, group=100), outcomes(200, 600, group=100)
    assert fires(OutcomeDrawdown(half_life=0.1), *alone)[1]
    assert not fires(OutcomeDrawdown(half_life=0.1), *together)[1]


def test_an_outcome_that_falls_with_its_total_is_no_divergence() -> None:
    rule = ProxyDivergence(half_life=0.1)
    assert fires(rule, outcomes(500, 1000), outcomes(100, 1000)) == [False, False]
    held = outcomes(100, 1000, score=0.5)
    assert fires(rule, outcomes(500, 1000), held) == [False, True]


def pairs(noise: float, items: int = 300) -> Summary:
    source = random.Random(5)
    values = [source.gauss(0, 1) for _ in range(items)]
    return summarise(
        Observation(0.0, {"verbs": value, "quote": value + source.gauss(0, noise)})
        for value in values
    )


def test_channels_that_always_agreed_are_no_lock() -> None:
    assert fires(ChannelLock(), pairs(1.0), pairs(0.01)) == [False, True]
    assert fires(ChannelLock(), pairs(0.01), pairs(0.01)) == [False, False]


def test_too_few_items_are_no_channel_lock() -> None:
    assert fires(ChannelLock(), pairs(1.0), pairs(0.0, items=200)) == [False, False]


def test_two_channels_at_zero_are_no_lock() -> None:
    apart = summarise([Observation(0.0, {"verbs": 0.2, "quote": 0.1})])
    dead = summarise([Observation(0.0, {"verbs": 0.0, "quote": 0.0})])
    assert fires(ChannelLock(), apart, dead) == [False, False]


def calls(*numbers: int) -> Summary:
    return summarise(Observation(0.0, calls=number) for number in numbers * 100)


def test_a_constant_number_of_calls_is_a_lock_only_if_it_is_new() -> None:
    assert not any(fires(BehaviourLock(), *[calls(3)] * 6))
    assert fires(BehaviourLock(), *[calls(3, 2)] * 3, calls(1)) == [False, False, False, True]
    assert not any(fires(BehaviourLock(), *[calls(3, 2)] * 3, calls(1, 1, 1, 2)))


def test_a_lock_does_not_become_the_baseline() -> None:
    assert fires(BehaviourLock(), *[calls(3, 2)] * 3, *[calls(1)] * 300)[-1]


def labels(share: float, items: int = 500) -> Summary:
    return summarise(
        Observation(0.0, labels={"neutral" if number < share * items else "entailment": 1})
        for number in range(items)
    )


def test_a_signal_collapse_has_the_label_and_the_entropy() -> None:
    (finding,) = SignalCollapse().findings(steps(labels(0.98)))
    assert finding is not None
    assert finding.about == ("neutral",)
    assert finding.severity == "critical"
    assert finding.evidence["entropy_bits"] == pytest.approx(0.1414, abs=1e-3)
    assert fires(SignalCollapse(), labels(0.94)) == [False]


def test_few_labels_are_evaluated_only_when_pooled() -> None:
    assert fires(SignalCollapse(), *[labels(1.0, items=100)] * 3) == [False, False, True]


def test_strong_support_is_off_by_default() -> None:
    assert "strong_support" not in {rule.id for rule in DEFAULT_RULES}
    assert fires(StrongSupport(), labels(0.2), labels(0.3)) == [True, False]


def test_a_channel_is_dead_after_a_thousand_equal_items() -> None:
    still = summarise(Observation(n / 500, {"gate": 0.0, "form": n / 500}) for n in range(500))
    (_, finding) = DeadChannel().findings(steps(still, still))
    assert finding is not None
    assert finding.about == ("gate",)
    assert fires(DeadChannel(), still) == [False]


def groups(flat: int, of: int) -> Summary:
    return summarise(
        Observation(0.0 if number < flat else float(member), group=str(number))
        for number in range(of)
        for member in range(4)
    )


@pytest.mark.parametrize(
    ("flat", "of", "severity"),
    [
        (79, 100, None),
        (81, 100, "warn"),
        (96, 100, "warn"),
        (32, 32, "warn"),
        (110, 110, "warn"),
        (111, 111, "critical"),
    ],
)
def test_the_share_of_degenerate_groups_decides_the_severity(
    flat: int, of: int, severity: str | None
) -> None:
    (finding,) = GroupDegeneracy().findings(steps(groups(flat, of)))
    assert (finding and finding.severity) == severity


def test_a_few_groups_that_vary_are_no_reason_to_be_less_sure_of_many_that_do_not() -> None:
    findings = GroupDegeneracy().findings(steps(groups(125, 128), groups(125, 128)))
    assert [finding and finding.severity for finding in findings] == ["warn", "critical"]


def test_groups_within_the_resolution_are_degenerate() -> None:
    assert fires(GroupDegeneracy(resolution=3.0), groups(0, 100)) == [True]


def test_a_shortening_to_two_thirds_is_silent_and_to_a_third_fires() -> None:
    def with_length(characters: int) -> Summary:
        return summarise(Observation(0.0, characters=characters) for _ in range(100))

    shrunk = [*[with_length(230)] * 6, *[with_length(167)] * 6]
    assert not any(fires(LengthCollapse(), *shrunk))
    grown = [*[with_length(200)] * 6, *[with_length(1000)] * 10, with_length(250)]
    assert fires(LengthCollapse(), *grown)[-1]


def test_length_collapse_uses_tokens_where_there_are_no_characters() -> None:
    tokens = [summarise([Observation(0.0, tokens=n)] * 100) for n in (400,) * 6 + (100,)]
    (*_, finding) = LengthCollapse().findings(steps(*tokens))
    assert finding is not None
    assert finding.severity == "critical"


def test_a_few_nulls_in_few_items_do_not_fire() -> None:
    few = summarise([Observation(None)] * 6 + [Observation(1.0)] * 194)
    many = summarise([Observation(None)] * 60 + [Observation(1.0)] * 1940)
    assert fires(NullShare(), few) == [False]
    assert fires(NullShare(), many) == [True]


def constants(items: int, score: float | None = 0.0) -> Summary:
    return summarise([Observation(score, characters=40)] * items)


@pytest.mark.parametrize(
    ("items", "severity"), [(2, None), (3, "warn"), (5, "warn"), (6, "critical"), (8, "critical")]
)
def test_items_that_all_fail_are_found_at_the_first_step(items: int, severity: str | None) -> None:
    (finding,) = NullShare().findings(steps(constants(items, None)))
    assert (finding and finding.severity) == severity


def test_twenty_steps_of_eight_failed_items_are_critical_from_the_first_on() -> None:
    findings = NullShare().findings(steps(*[constants(8, None)] * 20))
    assert [finding and finding.severity for finding in findings] == ["critical"] * 20


def test_a_constant_score_is_critical_once_others_are_surely_rare() -> None:
    rule = ConstantScore()
    assert fires(rule, *[constants(24)] * 20) == [False] * 10 + [True] * 10
    assert fires(rule, constants(241), constants(1)) == [False, True]
    assert fires(rule, *[constants(100)] * 3, constants(1, 0.5)) == [False, False, True, False]


def test_a_group_counts_as_one_item_of_a_constant_score() -> None:
    grouped = summarise([Observation(0.0, group=f"{n // 8}") for n in range(960)])
    again = summarise([Observation(0.0, group=f"b{n // 8}") for n in range(984)])
    assert fires(ConstantScore(), grouped) == [False]
    assert fires(ConstantScore(), grouped, again) == [False, True]


@pytest.mark.parametrize(
    ("invalid", "of", "severity"),
    [(110, 110, None), (111, 111, "critical"), (190, 200, "critical")],
)
def test_responses_that_are_nearly_all_invalid_are_critical_from_the_start(
    invalid: int, of: int, severity: str | None
) -> None:
    items = [Observation(0.0, invalid=number < invalid) for number in range(of)]
    (finding,) = InvalidShare().findings(steps(summarise(items)))
    assert (finding and finding.severity) == severity


def telemetry(name: str, *values: float | None) -> list[Summary]:
    summaries = [Summary() for _ in values]
    for summary, value in zip(summaries, values, strict=True):
        summary.add_telemetry({} if value is None else {name: value})
    return summaries


@pytest.mark.parametrize(
    ("rule", "name", "beyond", "within"),
    [
        (PolicyEntropy(), "entropy_nats", 0.005, 0.02),
        (KlJump(), "kl", 100.0, 99.0),
        (ClippedShare(), "clipped_share", 0.95, 0.4),
    ],
)
def test_a_level_is_critical_at_three_recorded_points_in_a_row(
    rule: Rule, name: str, beyond: float, within: float
) -> None:
    assert fires(rule, *telemetry(name, beyond, None, beyond)) == [False] * 3
    assert fires(rule, *telemetry(name, beyond, within, beyond, beyond)) == [False] * 4
    findings = rule.findings(steps(*telemetry(name, beyond, beyond, None, beyond)))
    assert [finding and finding.severity for finding in findings] == [*[None] * 3, "critical"]
    assert findings[-1] is not None
    assert findings[-1].value == pytest.approx(beyond)


def test_agreement_without_rising_length_is_no_collapse() -> None:
    points = []
    for step in range(10):
        summary = Summary()
        summary.add_telemetry(
            {"majority_share": 0.99, "clusters_mean": 1.0, "response_tokens_mean": 500.0 - step}
        )
        points.append(Point(step, summary))
    assert not any(AnswerCollapse().findings(points))


def test_a_length_recorded_late_does_not_change_earlier_findings() -> None:
    points = steps(*(summarise([Observation(1.0, tokens=n)]) for n in [10] * 6 + [30, 30]))
    for _, summary in points:
        summary.add_telemetry({"majority_share": 1.0})
    points[7].summary.add_telemetry({"response_tokens_mean": 5.0})
    findings = AnswerCollapse().findings(points)
    assert findings[:7] == AnswerCollapse().findings(points[:7])
    assert findings[6] is not None
    assert findings[6].evidence == {"length_share": pytest.approx(3.0, rel=0.05)}
    assert findings[7] is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_measure_that_appears_late_does_not_change_earlier_findings(rule: Rule) -> None:
    sparse = [
        summarise([Observation(1.0, tokens=100 if step < 7 else 20, calls=step // 7)] * 300)
        for step in range(12)
    ]
    whole = summarise(
        [
            Observation(
                1.0,
                {"form": 1.0},
                labels={"neutral": 1},
                characters=9,
                tokens=9,
                script="han",
            )
        ]
        * 300
    )
    points = steps(*sparse, whole, whole)
    for _, summary in points:
        summary.add_telemetry({"majority_share": 1.0})
    for name in TELEMETRY:
        points[-1].summary.add_telemetry({name: 3.0})
    findings = rule.findings(points)
    for cut in range(len(points)):
        assert rule.findings(points[:cut]) == findings[:cut]
