"""Matches of tool calls: the parts of the score, and the assignment that makes them largest."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from assay_models.base import Options
from assay_models.families.tool_call_match.matching import best_assignment, match_calls
from assay_models.families.tool_call_match.model import ToolCallMatchModel
from assay_models.items import ToolCallMatchItem

WEATHER = ("weather", {"city": "Rome", "days": 3})
CALLS = st.lists(
    st.tuples(st.sampled_from("fg"), st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))),
    max_size=5,
)


def score(predicted: list[Any], gold: list[Any], *, raw: bool = False) -> Any:
    model = ToolCallMatchModel("f")
    fields = {
        name: [{"name": call, "arguments": arguments} for call, arguments in calls]
        for name, calls in (("predicted", predicted), ("gold", gold))
    }
    options = Options(raw=raw)
    prepared = model.prepare([ToolCallMatchItem.model_validate(fields)], options)
    (result,) = model.finish(prepared, [], options)
    return result


@pytest.mark.parametrize(
    ("predicted", "expected", "channels"),
    [
        ([WEATHER], 3.0, (1.0, 1.0, 1.0)),
        ([("weather", {"days": 3.0, "city": "Rome"})], 3.0, (1.0, 1.0, 1.0)),
        ([("weather", {"city": "Rome", "days": 5})], 6 * 3 / 4 - 3, (1.0, 1.0, 0.5)),
        ([("weather", {"city": "Rome"})], 6 * 2.5 / 4 - 3, (1.0, 0.5, 0.5)),
        ([("weather", {"city": "Rome", "days": True})], 6 * 3 / 4 - 3, (1.0, 1.0, 0.5)),
        ([("forecast", {"city": "Rome", "days": 3})], -3.0, (0.0, 0.0, 0.0)),
        ([WEATHER, ("other", {})], 6 * 3.5 / 4 - 3, (0.5, 1.0, 1.0)),
        ([], -3.0, (0.0, 0.0, 0.0)),
    ],
)
def test_score_is_that_of_names_keys_and_values(
    predicted: list[Any], expected: float, channels: tuple[float, ...]
) -> None:
    result = score(predicted, [WEATHER])
    assert result.score == pytest.approx(expected)
    assert tuple(result.channels.values()) == pytest.approx(channels)
    assert score(predicted, [WEATHER], raw=True).score == pytest.approx((expected + 3) / 6)


def test_no_call_where_none_is_wanted_is_right_and_a_call_is_wrong() -> None:
    assert score([], []).score == 3.0
    assert score([WEATHER], []).score == -3.0


@given(CALLS, CALLS, st.randoms())
def test_order_of_calls_changes_nothing(made: list[Any], gold: list[Any], random: Any) -> None:
    before = match_calls(made, gold)
    random.shuffle(made)
    random.shuffle(gold)
    assert match_calls(made, gold) == pytest.approx(before)
    assert 0 <= before.share <= 1
    assert match_calls(gold, gold).share == 1.0


@given(
    st.integers(1, 6).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(0, 9), min_size=width, max_size=width), min_size=1, max_size=6
        )
    )
)
def test_assignment_has_the_largest_gain(gains: list[list[int]]) -> None:
    pairs = best_assignment(gains)
    rows, columns = linear_sum_assignment([[-gain for gain in row] for row in gains])
    assert len(pairs) == len(rows) == len({row for row, _ in pairs}) == len({c for _, c in pairs})
    best = sum(gains[row][column] for row, column in zip(rows, columns, strict=True))
    assert sum(gains[row][column] for row, column in pairs) == best
