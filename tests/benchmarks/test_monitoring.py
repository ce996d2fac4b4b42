"""The comparison of scoring with and without a run: equal requests, ratios and report."""

import json
import math

import pytest

from benchmarks.monitoring import (
    ITEMS_PER_STEP,
    RUN,
    Block,
    mean_ratio,
    report,
    request_bodies,
)


def test_requests_with_and_without_a_run_have_the_same_items() -> None:
    without = [json.loads(body) for body in request_bodies("m", 200, None)]
    named = [json.loads(body) for body in request_bodies("m", 200, 1)]
    assert len({body["items"][0]["response"] for body in without}) == 200
    steps = [body.pop("run") for body in named]
    assert named == without
    assert [step["step"] for step in steps] == [n // ITEMS_PER_STEP for n in range(200, 400)]
    assert {step["id"] for step in steps} == {RUN}


def test_a_mean_ratio_is_geometric_and_within_its_interval() -> None:
    even = mean_ratio([(2.0, 1.0), (1.0, 2.0)] * 10)
    assert even.value == pytest.approx(1.0)
    assert even.low < 1.0 < even.high
    same = mean_ratio([(0.97, 1.0)] * 5)
    assert (same.value, same.low, same.high) == pytest.approx((0.97, 0.97, 0.97))
    assert math.isclose(mean_ratio([(1.0, 4.0), (1.0, 1.0)]).value, 0.5)


def test_the_report_has_the_additional_cost_of_an_item() -> None:
    pairs = [(Block(1.0, 0.5, 1000), Block(1.25, 0.55, 1000))] * 3
    text = "\n".join(report("encoder", pairs))
    assert "500 µs without, 50 µs more with" in text
    assert "as a share of without: 0.800 [0.800, 0.800]" in text
    assert "as a multiple of without: 1.100 [1.100, 1.100]" in text
