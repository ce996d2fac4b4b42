"""The formulas of the post-retrieval predictors, compared with arithmetic in plain Python."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from assay_models.families.qpp import predictors

LIST = (9.5, 7.25, 7.0, 4.0, 3.5, 3.0, 0.5)
CORPUS, WORDS = -2.0, 4

Lists = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30).map(
    lambda values: sorted(values, reverse=True)
)
Positive = st.lists(st.floats(0.1, 1e3), min_size=1, max_size=30).map(
    lambda values: sorted(values, reverse=True)
)


def array(values: Sequence[float]) -> predictors.Scores:
    return np.array(values, dtype=np.float64)


def close(expected: float) -> object:
    return pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_score_predictors_equal_plain_formulas() -> None:
    scores, mean = array(LIST), statistics.fmean(LIST)
    assert predictors.mean(scores) == close(mean)
    assert predictors.deviation(scores) == close(statistics.pstdev(LIST))
    assert predictors.wig(scores[:5], CORPUS, WORDS) == close(
        sum(score - CORPUS for score in LIST[:5]) / 5 / 2
    )
    assert predictors.nqc(scores, CORPUS) == close(statistics.pstdev(LIST) / 2)
    spread = sum(score * abs(math.log(score / mean)) for score in LIST) / len(LIST)
    assert predictors.smv(scores, CORPUS) == close(spread / 2)
    deviations = [statistics.pstdev(LIST[:k]) for k in range(1, len(LIST) + 1)]
    assert predictors.sigma_max(scores) == close(max(deviations))
    assert predictors.sigma_share(scores, 0.5) == close(statistics.pstdev([9.5, 7.25, 7.0]))
    assert predictors.sigma_share(scores, 4 / 9.5) == close(
        statistics.pstdev([9.5, 7.25, 7.0, 4.0])
    )
    assert predictors.top_gap(scores) == 2.25


def test_sigma_max_can_be_greater_than_the_deviation_of_the_whole_list() -> None:
    scores = array([10.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert predictors.sigma_max(scores) == close(5.0)
    assert predictors.deviation(scores) < 4


@settings(max_examples=50, deadline=None, derandomize=True)
@given(Lists, st.floats(-1e3, 1e3), st.floats(0.01, 100.0))
def test_score_predictors_under_shift_and_scale(
    values: list[float], shift: float, scale: float
) -> None:
    scores, moved, scaled = array(values), array(values) + shift, array(values) * scale
    near: dict[str, Any] = {"rel": 1e-6, "abs": 1e-7}
    for predictor in (predictors.deviation, predictors.sigma_max):
        assert predictor(moved) == pytest.approx(predictor(scores), **near)
        assert predictor(scaled) == pytest.approx(scale * predictor(scores), **near)
    gained = predictors.wig(scores, 1.0, 3)
    assert predictors.wig(moved, 1.0 + shift, 3) == pytest.approx(gained, **near)
    assert predictors.wig(scaled, scale, 3) == pytest.approx(scale * gained, **near)
    assert predictors.nqc(scaled, scale) == pytest.approx(predictors.nqc(scores, 1.0), **near)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(Positive, st.floats(0.01, 100.0))
def test_smv_and_sigma_share_scale_with_the_unit(values: list[float], scale: float) -> None:
    scores = array(values)
    smv = predictors.smv(scores, 2.0)
    assert predictors.smv(scores * scale, 2.0 * scale) == pytest.approx(smv, rel=1e-9, abs=1e-9)
    half = predictors.sigma_share(scores, 0.4999999)
    assert predictors.sigma_share(scores * 4, 0.4999999) == close(4 * half)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(-1e6, 1e6), st.integers(1, 40))
def test_equal_scores_have_exactly_no_spread(score: float, count: int) -> None:
    scores = array([score] * count)
    assert predictors.deviation(scores) == 0
    assert predictors.sigma_max(scores) == 0
    assert predictors.nqc(scores, 3.0) == 0
    assert predictors.mean(scores) == score
    if score > 0:
        assert predictors.smv(scores, 3.0) == 0
        assert predictors.sigma_share(scores, 0.5) == 0


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    across = sum(x * y for x, y in zip(left, right, strict=True))
    return across / math.hypot(*left) / math.hypot(*right)


def softmax(values: Sequence[float]) -> list[float]:
    weights = [math.exp(value) for value in values]
    return [weight / sum(weights) for weight in weights]


def pearson(left: Sequence[float], right: Sequence[float]) -> float:
    return statistics.correlation(left, right)


VECTORS = ([3.0, 0.0, 4.0], [1.0, 2.0, 2.0], [0.5, 0.1, -0.2], [2.0, 1.0, 0.0])
SCORES = (5.0, 3.0, 2.5, 1.0)
QUERY = [1.0, 1.0, 0.5]
ROWS = predictors.unit(np.array(VECTORS))


def test_coherence_equals_the_plain_formula() -> None:
    pairs = [cosine(a, b) for a in VECTORS for b in VECTORS if a is not b]
    assert predictors.coherence(ROWS) == close(statistics.fmean(pairs))
    assert predictors.coherence(ROWS[:1]) is None


def test_autocorrelation_equals_the_plain_formula() -> None:
    diffused = []
    for a in VECTORS:
        others = [(b, s) for b, s in zip(VECTORS, SCORES, strict=True) if b is not a]
        weights = [max(0.0, cosine(a, b)) for b, _ in others]
        total = sum(weight * s for weight, (_, s) in zip(weights, others, strict=True))
        diffused.append(total / sum(weights))
    assert predictors.autocorrelation(array(SCORES), ROWS) == close(pearson(SCORES, diffused))


def test_autocorrelation_is_high_where_similar_results_have_similar_scores() -> None:
    rows = predictors.unit(np.array([[1.0, 0.05], [1.0, 0.0], [0.05, 1.0], [0.0, 1.0]]))
    together = predictors.autocorrelation(array([4.0, 3.9, 1.1, 1.0]), rows)
    apart = predictors.autocorrelation(array([4.0, 3.9, 1.1, 1.0]), rows[[0, 2, 1, 3]])
    assert together is not None
    assert apart is not None
    assert together > 0.9 > 0 > apart


def test_clarity_equals_the_plain_formula() -> None:
    models = [softmax([cosine(a, b) / 0.5 for b in VECTORS]) for a in VECTORS]
    spread = statistics.pstdev(SCORES)
    weights = softmax([(score - statistics.fmean(SCORES)) / spread for score in SCORES])
    relevance = [sum(w * m[j] for w, m in zip(weights, models, strict=True)) for j in range(4)]
    collection = [statistics.fmean(m[j] for m in models) for j in range(4)]
    divergence = sum(r * math.log(r / c) for r, c in zip(relevance, collection, strict=True))
    assert predictors.clarity(array(SCORES), ROWS, 0.5) == close(divergence)
    assert predictors.clarity(array([2.0] * 4), ROWS, 0.5) == 0
    assert predictors.clarity(array([2.0]), ROWS[:1], 0.5) is None


def test_query_fit_equals_the_plain_formula() -> None:
    directions = [[x / math.hypot(*vector) for x in vector] for vector in VECTORS]
    total = [sum(column) for column in zip(*directions, strict=True)]
    query = predictors.unit(np.array(QUERY))
    assert predictors.query_fit(query, ROWS) == close(cosine(QUERY, total))
    opposite = predictors.unit(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    assert predictors.query_fit(opposite[0], opposite) is None


@pytest.mark.parametrize(
    ("scores", "vectors"),
    [
        ([2.0, 1.0], [[1.0, 0.0], [1.0, 1.0]]),  # two results
        ([2.0, 2.0, 2.0], [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]),  # equal scores
        (
            [3.0, 2.0, 1.0],
            [[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]],
        ),  # one result is similar to no other
    ],
)
def test_autocorrelation_is_none_where_it_is_undefined(
    scores: list[float], vectors: list[list[float]]
) -> None:
    rows = predictors.unit(np.array(vectors))
    assert predictors.autocorrelation(array(scores), rows) is None


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4),
    st.floats(0.01, 100.0),
    st.floats(-1e3, 1e3),
)
def test_embedding_predictors_do_not_depend_on_the_unit_of_scores(
    values: list[float], scale: float, shift: float
) -> None:
    scores = array(sorted(values, reverse=True))
    assume(predictors.deviation(scores) >= 1e-3)
    moved = scores * scale + shift
    assume(predictors.deviation(moved) >= 1e-4)
    clarity = predictors.clarity(scores, ROWS, 0.2)
    assert predictors.clarity(moved, ROWS, 0.2) == pytest.approx(clarity, abs=1e-6)
    correlation = predictors.autocorrelation(scores, ROWS)
    assert predictors.autocorrelation(moved, ROWS) == pytest.approx(correlation, abs=1e-4)


def test_unit_keeps_only_the_direction() -> None:
    huge = np.array(VECTORS) * np.array([[1e300], [1e-300], [1.0], [7.0]])
    assert predictors.unit(huge) == pytest.approx(ROWS, abs=1e-12)
