"""Summaries: the same in any order, bounded, and equal to the plain formulas."""

import math
import random
import statistics
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_monitors.group_ranges import MAX_GROUPS
from assay_monitors.moments import Comoments, Moments
from assay_monitors.observations import Observation, measure_text
from assay_monitors.sketch import RELATIVE_ERROR, QuantileSketch
from assay_monitors.summaries import MAX_CHANNELS, MAX_NAMES, Summary, summarise

from .series import observations

parts = st.lists(st.lists(observations, max_size=8), min_size=1, max_size=4)


def merged(*summaries: Summary) -> Summary:
    whole = Summary()
    for summary in summaries:
        whole.merge(summary)
    return whole


@given(parts, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_merging_summaries_equals_adding_all_observations(
    cut: list[list[Observation]], order: random.Random
) -> None:
    everything = [observation for part in cut for observation in part]
    order.shuffle(everything)
    summaries = [summarise(part) for part in cut]
    order.shuffle(summaries)
    assert merged(*summaries) == summarise(everything)


@given(parts)
@settings(max_examples=50, deadline=None)
def test_merging_is_associative(cut: list[list[Observation]]) -> None:
    first, second, third = (summarise(part) for part in (cut * 3)[:3])
    assert merged(merged(first, second), third) == merged(first, merged(second, third))


def test_bounded_groups_and_names_are_the_same_in_any_order() -> None:
    source = random.Random(1)
    everything = [
        Observation(
            source.random(),
            channels={f"c{source.randrange(40):02}": source.random() for _ in range(10)},
            labels={f"l{source.randrange(500)}": 1},
            group=str(source.randrange(600)),
            flags=[f"f{source.randrange(300)}"],
            calls=source.randrange(200),
        )
        for _ in range(3000)
    ]
    whole = summarise(everything)
    source.shuffle(everything)
    assert whole == merged(*(summarise(everything[start::7]) for start in range(7)))
    assert len(whole.groups.ranges) == MAX_GROUPS
    assert len(whole.channels) == MAX_CHANNELS
    assert len(whole.pairs) <= MAX_CHANNELS * (MAX_CHANNELS - 1) // 2
    assert max(len(whole.labels), len(whole.flags), len(whole.calls)) == MAX_NAMES
    for name, moments in whole.channels.items():
        assert moments.count == sum(name in item.channels for item in everything)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_moments_equal_those_of_statistics(values: list[float]) -> None:
    moments = Moments()
    for value in values:
        moments.add(value)
    assert moments.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert moments.std == pytest.approx(statistics.pstdev(values), abs=1e-6, rel=1e-9)
    assert (moments.low, moments.high) == (min(values), max(values))


def test_a_large_mean_does_not_cancel_the_variance() -> None:
    moments = Moments()
    for value in (1e9, 1e9 + 0.001):
        moments.add(value)
    assert moments.std == pytest.approx(0.0005, rel=1e-3)


def test_moments_without_values_are_none() -> None:
    assert Moments().mean is None
    assert Moments().std is None
    assert Moments().standard_error == 0.0


def test_the_largest_number_is_clamped_and_an_infinite_one_is_null() -> None:
    summary = summarise([Observation(sys.float_info.max), Observation(math.inf), Observation(1.0)])
    assert summary.nulls == 1
    assert summary.score.high == 2.0**53


def test_correlation_equals_pearsons() -> None:
    source = random.Random(2)
    pairs = [(x, 2 * x + source.gauss(0, 1)) for x in (source.gauss(0, 1) for _ in range(200))]
    sums = Comoments()
    for x, y in pairs:
        sums.add(x, y)
    assert sums.correlation == pytest.approx(statistics.correlation(*zip(*pairs, strict=True)))


def test_a_constant_has_no_correlation() -> None:
    sums = Comoments()
    for x in range(5):
        sums.add(x, 0.1)
    assert sums.correlation is None


@given(st.lists(st.floats(1e-5, 1e8) | st.floats(-1e8, -1e-5), min_size=1, max_size=60))
def test_a_quantile_is_within_two_percent_of_the_value_of_its_rank(values: list[float]) -> None:
    sketch = QuantileSketch()
    for value in values:
        sketch.add(value)
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        exact = sorted(values)[math.floor(share * (len(values) - 1))]
        assert sketch.quantile(share) == pytest.approx(exact, rel=1.01 * RELATIVE_ERROR)


def test_a_sketch_has_a_bounded_number_of_buckets() -> None:
    sketch = QuantileSketch()
    for power in range(-300, 300):
        sketch.add(10.0**power)
        sketch.add(-(10.0**power))
    assert sketch.count == 1200
    assert len(sketch.buckets) < 2 * 870
    assert QuantileSketch().quantile(0.5) is None


def test_a_missing_or_infinite_score_is_null() -> None:
    summary = summarise([Observation(None), Observation(math.nan), Observation(0.5)])
    assert (summary.items, summary.nulls, summary.score.count) == (3, 2, 1)


def test_a_null_channel_is_not_counted_as_zero() -> None:
    summary = summarise([Observation(1.0, {"brevity": None}), Observation(1.0, {"brevity": 0.5})])
    assert summary.channels["brevity"].count == 1
    assert summary.channels["brevity"].mean == 0.5


def test_constant_groups_are_counted_over_merged_summaries() -> None:
    first = summarise([Observation(1.0, {"x": 0.2}, group="a"), Observation(0.0, group="b")])
    second = summarise([Observation(1.0, {"x": 0.2}, group="a"), Observation(1.0, group="b")])
    assert merged(first, second).groups.count_zero_variance(0.0) == (1, 2)
    assert merged(first, second).groups.count_zero_variance(1.0) == (2, 2)


def test_one_varying_channel_makes_a_group_vary() -> None:
    items = [Observation(1.0, {"x": x}, group="a") for x in (0.1, 0.2)]
    assert summarise(items).groups.count_zero_variance(0.0) == (0, 1)


def test_a_group_of_one_item_is_not_counted() -> None:
    assert summarise([Observation(1.0, group="a")]).groups.count_zero_variance(0.0) == (0, 0)


def test_a_summary_holds_no_text() -> None:
    secret = "the response itself"
    measures = measure_text(secret)
    item = Observation(1.0, group=secret, characters=measures.characters, script=measures.script)
    assert secret not in repr(summarise([item]))


def test_telemetry_that_is_not_finite_is_left_out() -> None:
    summary = Summary()
    summary.add_telemetry({"kl": 0.5, "entropy_nats": math.nan})
    summary.add_telemetry({"kl": 1.5})
    assert {name: moments.mean for name, moments in summary.telemetry.items()} == {"kl": 1.0}


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("", "none"),
        ("12 + 3!", "none"),
        ("plain words", "latin"),
        ("déjà vu, naïve", "latin"),
        ("это ответ", "cyrillic"),
        ("这是答案, ok", "han"),
        ("これはこたえです", "kana"),
        ("대답입니다", "hangul"),
        ("ελληνικά", "greek"),
        ("مرحبا", "arabic"),
        ("שלום", "hebrew"),
        ("नमस्ते", "devanagari"),
        ("ab это", "cyrillic"),
        ("🙂🙂 a", "latin"),
        ("an answer" * 1000 + "这", "latin"),
        ("这是答案" * 100_000, "han"),
    ],
)
def test_the_script_is_that_of_most_letters(text: str, script: str) -> None:
    assert measure_text(text) == (len(text), script)
