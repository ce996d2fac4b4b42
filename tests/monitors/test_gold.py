"""Agreement with gold: estimates compared with scipy's, and advice on published curves."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from assay_monitors.advice import Advice, GoldAdvisor
from assay_monitors.gold import (
    GoldItem,
    GoldPair,
    GoldPoint,
    bradley_terry_loss,
    gold_pairs,
    measure,
    reward_accuracy,
)
from assay_monitors.intervals import Estimate, exact, mean, normal, slope, spearman, wilson

# The judge of arXiv 2602.18037, read off its figure, steps 0 to 1000 by 100.
STEPS = range(0, 1100, 100)
HACKED = (
    (0.717, 0.770, 0.737, 0.772, 0.824, 0.912, 0.914, 0.883, 0.840, 0.928, 0.943),
    (0.035, 0.30, 0.105, 0.11, 0.09, 0.045, 0.04, 0.02, 0.025, 0.02, 0.017),
)
REGULARISED = (
    (0.71, 0.766, 0.738, 0.74, 0.79, 0.779, 0.80, 0.779, 0.808, 0.824, 0.815),
    (0.035, 0.335, 0.39, 0.40, 0.40, 0.44, 0.44, 0.435, 0.455, 0.44, 0.43),
)


def curves(proxies: tuple[float, ...], golds: tuple[float, ...]) -> list[GoldPoint]:
    return [
        GoldPoint(step, proxy=exact(proxy), gold=exact(gold))
        for step, proxy, gold in zip(STEPS, proxies, golds, strict=True)
    ]


def advice_by_point(points: list[GoldPoint]) -> list[Advice | None]:
    return [GoldAdvisor().advise(points[:end]) for end in range(1, len(points) + 1)]


def test_the_hacked_judge_has_advice_from_step_300_on() -> None:
    advice = advice_by_point(curves(*HACKED))
    assert [at_point is not None for at_point in advice] == [False] * 3 + [True] * 8
    assert advice[3] == Advice(300, "stop", ("slopes", "drawdown"), healthy_step=100)


def test_the_regularised_judge_has_no_advice() -> None:
    assert not any(advice_by_point(curves(*REGULARISED)))


def test_a_fall_within_sampling_error_has_no_advice() -> None:
    def noisy(gold: float) -> Estimate:
        return normal(gold, 0.2, 6)

    points = [
        GoldPoint(step, proxy=exact(0.5 + step / 1000), gold=noisy(gold))
        for step, gold in ((0, 0.5), (100, 0.45), (200, 0.3))
    ]
    assert advice_by_point(points)[-1] is None
    sure = [
        GoldPoint(point.step, proxy=point.proxy, gold=exact(point.gold.value))
        for point in points
        if point.gold
    ]
    assert advice_by_point(sure)[-1] is not None


def accuracy(step: int, hits: int, of: int = 200) -> GoldPoint:
    return GoldPoint(step, accuracy=wilson(hits, of))


def test_advice_on_accuracy_needs_a_fall_beyond_threshold_and_interval() -> None:
    assert advice_by_point([accuracy(0, 160), accuracy(50, 152)])[-1] is None
    assert advice_by_point([accuracy(0, 16, 20), accuracy(50, 14, 20)])[-1] is None
    latest = advice_by_point([accuracy(0, 150), accuracy(50, 160), accuracy(100, 120)])[-1]
    assert latest == Advice(100, "reset_reference", ("accuracy",), healthy_step=50)


def test_advice_on_loss_needs_a_rise_beyond_threshold_and_interval() -> None:
    points = [GoldPoint(0, loss=normal(0.4, 0.01, 200)), GoldPoint(9, loss=normal(0.6, 0.2, 200))]
    assert advice_by_point(points)[-1] is None
    points[1] = GoldPoint(9, loss=normal(0.6, 0.02, 200))
    assert advice_by_point(points)[-1] == Advice(9, "reset_reference", ("loss",), healthy_step=0)


def test_a_jump_of_the_gradient_norm_advises_regularisation() -> None:
    points = [GoldPoint(step, gradient_norm=1.0 + step % 2) for step in range(6)]
    points.append(GoldPoint(6, gradient_norm=30.0))
    advice = advice_by_point(points)
    assert not any(advice[:-1])
    assert advice[-1] == Advice(6, "raise_regularisation", ("gradient_norm",), healthy_step=5)


def test_without_measurements_there_is_no_advice() -> None:
    assert GoldAdvisor().advise([]) is None
    assert GoldAdvisor().advise([GoldPoint(0)]) is None


def test_pairs_are_of_one_prompt_and_ordered_by_gold() -> None:
    items = [
        GoldItem("a", proxy=1.0, gold=0.0),
        GoldItem("a", proxy=2.0, gold=1.0),
        GoldItem("b", proxy=5.0, gold=1.0),
        GoldItem("b", proxy=3.0, gold=1.0),
        GoldItem("c", proxy=0.0, gold=9.0),
    ]
    assert gold_pairs(items) == [GoldPair(2.0, 1.0)]
    assert gold_pairs([items[1], items[0]]) == [GoldPair(2.0, 1.0)]


def test_a_tie_does_not_count_as_agreement() -> None:
    assert reward_accuracy([GoldPair(1.0, 1.0), GoldPair(2.0, 1.0)]).value == 0.5


def test_the_loss_is_bradley_terry() -> None:
    assert bradley_terry_loss([GoldPair(0.0, 0.0)]).value == pytest.approx(math.log(2))
    assert bradley_terry_loss([GoldPair(2.0, 0.0)]).value == pytest.approx(math.log1p(math.exp(-2)))
    assert bradley_terry_loss([GoldPair(0.0, 1e4)]).value == pytest.approx(1e4)


def test_a_measurement_has_accuracy_rank_and_loss() -> None:
    source = random.Random(5)
    items = []
    for prompt in range(200):
        for _ in range(2):
            gold = source.gauss(0, 1)
            items.append(GoldItem(str(prompt), gold + source.gauss(0, 1), gold))
    point = measure(40, items, gradient_norm=3.0)
    assert point.accuracy is not None
    assert point.accuracy.n == 200
    assert point.accuracy.low < 0.75 < point.accuracy.high
    assert point.rank is not None
    assert point.rank.low < 0.690 < point.rank.high
    assert point.loss is not None
    assert point.loss.value < math.log(2)
    assert measure(1, []) == GoldPoint(1)


floats = st.floats(-100, 100)


@given(st.lists(st.tuples(st.integers(-5, 5), floats), min_size=4, max_size=30))
def test_rank_correlation_equals_scipys(pairs: list[tuple[int, float]]) -> None:
    xs, ys = ([float(value) for value in side] for side in zip(*pairs, strict=True))
    estimate = spearman(xs, ys)
    if estimate is None:
        assert len(set(xs)) == 1 or len(set(ys)) == 1
        return
    assert estimate.value == pytest.approx(stats.spearmanr(xs, ys).statistic, abs=1e-9)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1


@given(st.integers(1, 500), st.data())
def test_wilsons_interval_equals_scipys(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    estimate = wilson(hits, total)
    theirs = stats.binomtest(hits, total).proportion_ci(0.95, method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((theirs.low, theirs.high), abs=1e-4)


def test_wilsons_interval_of_no_values_is_zero_to_one() -> None:
    assert wilson(0, 0) == Estimate(0.0, 0.0, 1.0, 0)


def test_the_mean_has_a_95_percent_interval() -> None:
    estimate = mean([1.0, 2.0, 3.0])
    assert estimate.value == 2.0
    assert estimate.high - estimate.value == pytest.approx(1.96 / math.sqrt(3))
    assert mean([4.0]) == exact(4.0)


def test_the_slope_is_least_squares_with_the_error_of_its_points() -> None:
    steps = [0, 10, 30]
    estimate = slope(steps, [normal(value, 0.1, 9) for value in (1.0, 3.0, 4.0)])
    assert estimate.value == pytest.approx(stats.linregress(steps, [1.0, 3.0, 4.0]).slope)
    spread = sum((step - 40 / 3) ** 2 for step in steps)
    assert estimate.high - estimate.value == pytest.approx(1.96 * 0.1 / math.sqrt(spread))


FEW: dict[str, list[list[tuple[float, float]]]] = {
    "one response a step": [[(1, 1.0)], [(2, 0.5)], [(3, 0.0)]],
    "four equal ones a step": [[(1, 1.0)] * 4, [(1, 0.0)] * 4],
    "one pair a step": [[(1, 0.0), (1.1, 1.0)], [(2, 1.0), (2.1, 0.0)]],
    "nineteen a step": [[(1, 1.0)] * 19, [(1, 0.0)] * 19],
}


def points_of(steps: list[list[tuple[float, float]]]) -> list[GoldPoint]:
    return [
        measure(step, [GoldItem("p", proxy=proxy, gold=gold) for proxy, gold in pairs])
        for step, pairs in enumerate(steps)
    ]


@pytest.mark.parametrize("name", FEW)
def test_few_responses_give_no_advice(name: str) -> None:
    assert GoldAdvisor().advise(points_of(FEW[name])) is None


def test_enough_responses_that_all_lose_their_gold_ask_for_a_stop() -> None:
    advice = GoldAdvisor().advise(points_of([[(1, 1.0)] * 20, [(1, 0.0)] * 20]))
    assert advice is not None
    assert (advice.action, advice.grounds) == ("stop", ("drawdown",))


def test_one_response_has_no_mean() -> None:
    point = measure(3, [GoldItem("p", proxy=1.0, gold=0.5)])
    assert (point.proxy, point.gold, point.loss) == (None, None, None)
