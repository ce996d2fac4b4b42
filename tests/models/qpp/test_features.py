"""Features of a query: word features and hashed n-grams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_models.families.qpp.features import (
    BINS,
    FEATURES,
    bin_of,
    ngrams,
    read_features,
)
from assay_models.families.qpp.query_text import normalise


def test_the_five_word_features_of_a_sentence() -> None:
    text = "The baker and the apprentice knead dough on a table, then they rest."
    numbers = dict(zip(FEATURES, read_features(text).numbers, strict=True))
    assert numbers == {
        "words": 13,
        "distinct_words": 12,
        "characters": 68,
        "conjunctions_per_word": 1 / 13,
        "prepositions_per_word": 1 / 13,
    }


def test_a_contraction_is_one_word_and_hyphenated_parts_are_two() -> None:
    assert read_features("don't re-open it").words == 4


def test_the_bin_is_the_crc32_of_the_ngram() -> None:
    check_value_of_crc32 = 0xCBF43926
    assert bin_of("123456789") == check_value_of_crc32 % BINS


def test_repeated_words_are_counted_and_adjacent_words_joined() -> None:
    features = read_features("Row row row")
    counted = dict(zip(features.bins, features.counts, strict=True))
    assert counted == {bin_of("row"): 3, bin_of("row row"): 2}
    assert ngrams(["a", "b", "c"]) == ["a", "b", "c", "a b", "b c"]


@pytest.mark.parametrize("text", ["", "?!", "…", "\x00"])
def test_a_text_without_words_has_no_bins(text: str) -> None:
    features = read_features(text)
    assert features.words == 0
    assert features.bins == ()
    assert features.numbers == (0, 0, len(text), 0, 0)


@given(st.text())
def test_the_features_of_any_text_are_in_range(text: str) -> None:
    normalised = normalise(text)
    features = read_features(normalised)
    assert normalise(normalised) == normalised
    assert list(features.bins) == sorted(set(features.bins))
    assert all(0 <= index < BINS for index in features.bins)
    assert sum(features.counts) == features.words + max(0, features.words - 1)
    assert 0 <= features.numbers[1] <= features.numbers[0]
    assert all(0 <= share <= 1 for share in features.numbers[3:])
