"""The shapings agree with torch in double precision, also where naive formulas overflow."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_models.shaping import identity, log_odds, probabilities, shape, sigmoid, softplus

RAWS = st.floats(-1e6, 1e6)


def double(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@settings(derandomize=True)
@given(RAWS)
def test_shapings_agree_with_torch(raw: float) -> None:
    assert identity(raw) == raw
    assert sigmoid(raw) == pytest.approx(torch.sigmoid(double(raw)).item(), rel=1e-12)
    theirs = torch.logaddexp(double(raw), double(0.0)).item()
    assert softplus(raw) == pytest.approx(theirs, rel=1e-12)


@settings(derandomize=True)
@given(st.lists(st.floats(-700, 700), min_size=2, max_size=6), st.data())
def test_log_odds_and_probabilities_agree_with_torch(
    logits: list[float], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(logits) - 1))
    values = torch.tensor(logits, dtype=torch.float64)
    others = torch.cat([values[:index], values[index + 1 :]])
    expected = (values[index] - torch.logsumexp(others, -1)).item()
    assert log_odds(logits, index) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert probabilities(logits) == pytest.approx(torch.softmax(values, -1).tolist(), rel=1e-9)
    assert math.fsum(probabilities(logits)) == pytest.approx(1)


def test_large_raws_neither_overflow_nor_underflow_to_zero() -> None:
    assert (sigmoid(1000), sigmoid(-1000)) == (1.0, 0.0)
    assert sigmoid(-50) == pytest.approx(math.exp(-50), rel=1e-12)
    assert softplus(-50) == pytest.approx(math.exp(-50), rel=1e-12)
    assert softplus(1000) == 1000
    assert log_odds([90.0, 0.0, 0.0], 0) == pytest.approx(90 - math.log(2))


def test_nan_stays_nan_and_infinity_is_handled() -> None:
    assert all(math.isnan(shape(name, math.nan)) for name in ("identity", "sigmoid", "softplus"))
    assert math.isnan(log_odds([math.nan, 0.0], 0))
    assert shape("softplus", math.inf) == math.inf
    assert shape("sigmoid", math.inf) == 1.0
