"""The three measures of the distance between a rewrite and its original."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_models.families.qpp.features import words_of
from assay_models.families.qpp.rewrites import FUNCTION_WORDS, length_change, novelty, similarity

numbers = st.floats(-1e6, 1e6)
vectors = st.integers(1, 12).flatmap(
    lambda width: st.tuples(*(st.lists(numbers, min_size=width, max_size=width),) * 2)
)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ((1.0, 0.0), (0.0, 2.0), 0.0),
        ((1.0, 1.0), (2.0, 2.0), 1.0),
        ((1.0, 0.0), (-3.0, 0.0), -1.0),
        ((3.0, 4.0), (4.0, 3.0), 24 / 25),
        ((0.0, 0.0), (1.0, 0.0), 0.0),
    ],
)
def test_similarity_by_table(
    left: tuple[float, ...], right: tuple[float, ...], expected: float
) -> None:
    assert similarity(left, right) == pytest.approx(expected)


@given(vectors)
def test_similarity_is_bounded_and_symmetric(
    pair: tuple[list[float], list[float]],
) -> None:
    left, right = pair
    assert -1 <= similarity(left, right) <= 1
    assert similarity(left, right) == similarity(right, left)


def test_the_similarity_of_nan_is_nan() -> None:
    assert math.isnan(similarity((math.nan, 1.0), (1.0, 1.0)))


@pytest.mark.parametrize(
    ("text", "original", "expected"),
    [
        ("a dog runs", "one cat sits", 0.0),
        ("a dog runs on a beach", "a dog runs", math.log(2)),
        ("dog", "a dog in the sea", -math.log(5)),
        ("?!", "a dog", -math.log(2)),
        ("?!", "...", 0.0),
    ],
)
def test_length_change_by_table(text: str, original: str, expected: float) -> None:
    assert length_change(text, original) == pytest.approx(expected)


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_length_changes_add_up(first: str, second: str, third: str) -> None:
    total = length_change(third, second) + length_change(second, first)
    assert total == pytest.approx(length_change(third, first))
    assert length_change(first, first) == 0


@pytest.mark.parametrize(
    ("text", "original", "expected"),
    [
        ("a dog runs", "a dog runs", 0.0),
        ("the dog is on it", "a dog", 0.0),
        ("A DOG runs", "a dog", 0.5),
        ("dogs", "a dog", 1.0),
        ("a red red red dog", "a dog", 0.5),
        ("of the", "a dog", 0.0),
        ("a", "", 0.0),
        ("dog", "", 1.0),
    ],
)
def test_novelty_by_table(text: str, original: str, expected: float) -> None:
    assert novelty(text, original) == expected


@given(st.text(max_size=120), st.text(max_size=120))
def test_novelty_is_a_share_and_zero_where_no_word_is_new(text: str, original: str) -> None:
    assert 0 <= novelty(text, original) <= 1
    assert novelty(text, f"{original} {text}") == 0
    assert novelty(text, text) == 0


def test_every_function_word_is_one_word() -> None:
    assert all(words_of(word) == [word] for word in FUNCTION_WORDS)
