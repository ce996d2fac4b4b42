"""Kinds of runs: those that fail from the start are red in three steps, healthy ones are never."""

import random
from collections.abc import Callable

import pytest

from assay_monitors.advice import GoldAdvisor
from assay_monitors.gold import GoldItem, measure
from assay_monitors.health import DEFAULT_RULES, Status, evaluate_rules, overall_status
from assay_monitors.summaries import Point, Summary

from .kinds import FAILING, HEALTHY, Kind, noisy, points_of, rising, usual_telemetry

SIZES = (8, 32, 40, 96, 160, 512)
MORE_SEEDS = range(1, 6)


def same(items: int) -> Callable[[random.Random, int], int]:
    return lambda source, step: items


def mixed(source: random.Random, step: int) -> int:
    return source.choice((8, 16, 64, 256))


def status(series: list[Point]) -> Status:
    return overall_status(series, evaluate_rules(series))


def red_steps(series: list[Point]) -> dict[str, list[int]]:
    """Return the steps at which each rule is critical, of those that ever are."""
    steps = {
        rule.id: [
            point.step
            for point, finding in zip(series, rule.findings(series), strict=True)
            if finding is not None and finding.severity == "critical"
        ]
        for rule in DEFAULT_RULES
    }
    return {rule: red for rule, red in steps.items() if red}


def sizes_that_are_not_red(kind: Kind, seed: int) -> list[int]:
    """Return the items a step with which a failing run is not red after three steps."""
    sizes = sorted({kind.items, *(size for size in SIZES if size > kind.items)})
    return [size for size in sizes if status(points_of(kind, seed, 3, same(size))) != "critical"]


@pytest.mark.parametrize("name", FAILING)
def test_a_run_that_fails_from_the_start_is_red_within_three_steps(name: str) -> None:
    assert sizes_that_are_not_red(FAILING[name], seed=0) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILING)
def test_a_run_that_fails_from_the_start_is_red_with_other_seeds_too(name: str) -> None:
    assert [sizes_that_are_not_red(FAILING[name], seed) for seed in MORE_SEEDS] == [[]] * 5


@pytest.mark.parametrize("name", FAILING)
def test_a_run_that_fails_with_few_items_is_never_green(name: str) -> None:
    series = points_of(FAILING[name], 0, 60, same(8))
    green = [end for end in range(1, len(series) + 1, 3) if status(series[:end]) == "ok"]
    assert green == []


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_never_red(name: str) -> None:
    for sizes in (same(8), same(32), mixed):
        assert red_steps(points_of(HEALTHY[name], 0, 60, sizes)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE_SEEDS)
@pytest.mark.parametrize("name", HEALTHY)
def test_a_long_healthy_run_is_never_red(name: str, seed: int) -> None:
    for sizes in (same(8), same(32), mixed):
        assert red_steps(points_of(HEALTHY[name], seed, 300, sizes)) == {}


@pytest.mark.parametrize("name", ["noise", "noise in groups", "slowly rising"])
def test_a_healthy_run_is_green_once_it_is_assessed(name: str) -> None:
    series = points_of(HEALTHY[name], 0, 40, same(32))
    assert (status(series[:1]), status(series)) == ("waiting", "ok")


GREEN_WITH_FEW_ITEMS = [
    "one of twenty succeeds",
    "one of a hundred fails",
    "noise",
    "noise in groups",
    "two of a hundred items fail",
    "a frequent verdict",
    "some verdicts are unsure",
    "divergence as a sum",
]


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize("name", GREEN_WITH_FEW_ITEMS)
def test_a_healthy_run_of_few_items_a_step_becomes_green(name: str, items: int) -> None:
    series = points_of(HEALTHY[name], 0, 300, same(items))
    assert (status(series[:60]), status(series)) == ("waiting", "ok")


# The outcome of a single item passes for a mean, which has no error of sampling.
WITHOUT_OUTCOME = [name for name, kind in HEALTHY.items() if kind.item is not rising]


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize("name", WITHOUT_OUTCOME)
def test_a_healthy_run_of_few_items_a_step_is_never_red(name: str, items: int) -> None:
    assert red_steps(points_of(HEALTHY[name], 0, 300, same(items))) == {}


@pytest.mark.parametrize("name", FAILING)
def test_a_failing_run_of_few_items_a_step_becomes_red(name: str) -> None:
    # A group needs two items in its step before it can be without variance.
    items = 1 if FAILING[name].group == 1 else 2
    assert status(points_of(FAILING[name], 0, 300, same(items))) == "critical"


def test_a_run_without_data_is_grey() -> None:
    assert status([]) == "waiting"
    assert status([Point(0, Summary())]) == "waiting"


def test_a_run_with_telemetry_alone_is_grey() -> None:
    kind = Kind(noisy, telemetry=usual_telemetry)
    assert status(points_of(kind, 0, 40, same(0))) == "waiting"


def test_gold_that_the_reward_reverses_asks_for_a_stop_at_once() -> None:
    source = random.Random(3)
    for gold_sign, action in ((-1.0, "stop"), (1.0, None)):
        proxies = [source.gauss(0, 1) for _ in range(100)]
        items = [
            GoldItem(f"{place // 2}", proxy, gold_sign * proxy + source.gauss(0, 1))
            for place, proxy in enumerate(proxies)
        ]
        advice = GoldAdvisor().advise([measure(0, items)])
        assert (advice and advice.action) == action


def test_gold_whose_prompts_differ_the_other_way_round_is_not_reversed() -> None:
    items = [
        GoldItem(f"{prompt}", 10.0 * prompt + better, -10.0 * prompt + better)
        for prompt in range(50)
        for better in (0.0, 1.0)
    ]
    assert GoldAdvisor().advise([measure(0, items)]) is None


def test_gold_that_ties_with_the_reward_is_not_reversed() -> None:
    items = [GoldItem(f"{place // 2}", 0.0, float(place % 2)) for place in range(100)]
    assert GoldAdvisor().advise([measure(0, items)]) is None
