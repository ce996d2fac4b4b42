"""The comparison of scoring with and without a run: equal work, and an honest interval."""

import json
import math

import pytest

from benchmarks.monitoring import ITEMS_OF_A_STEP, RUN, Block, bodies, ratio, report


def test_both_sides_ask_for_the_same_and_only_one_names_a_run() -> None:
    without = [json.loads(body) for body in bodies("m", 200, None)]
    named = [json.loads(body) for body in bodies("m", 200, 1)]
    assert len({body["items"][0]["response"] for body in without}) == 200
    steps = [body.pop("run") for body in named]
    assert named == without
    assert [one["step"] for one in steps] == [n // ITEMS_OF_A_STEP for n in range(200, 400)]
    assert {one["id"] for one in steps} == {RUN}


def test_a_ratio_is_geometric_and_its_interval_holds_it() -> None:
    even = ratio([(2.0, 1.0), (1.0, 2.0)] * 10)
    assert even.value == pytest.approx(1.0)
    assert even.low < 1.0 < even.high
    same = ratio([(0.97, 1.0)] * 5)
    assert (same.value, same.low, same.high) == pytest.approx((0.97, 0.97, 0.97))
    assert math.isclose(ratio([(1.0, 4.0), (1.0, 1.0)]).value, 0.5)


def test_the_report_says_how_much_more_an_item_costs() -> None:
    pairs = [(Block(1.0, 0.5, 1000), Block(1.25, 0.55, 1000))] * 3
    text = "\n".join(report("encoder", pairs))
    assert "500 µs without, 50 µs more with" in text
    assert "as a share of without: 0.800 [0.800, 0.800]" in text
    assert "as a multiple of without: 1.100 [1.100, 1.100]" in text
