import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_models.families.qpp.features import (
    BINS,
    FEATURES,
    bin_of,
    ngrams,
    normalise,
    read_features,
)


def test_five_numbers_of_a_sentence() -> None:
    text = "The baker and the apprentice knead dough on a table, then they rest."
    numbers = dict(zip(FEATURES, read_features(text).numbers, strict=True))
    assert numbers == {
        "words": 13,
        "distinct_words": 12,
        "characters": 68,
        "conjunctions_per_word": 1 / 13,
        "prepositions_per_word": 1 / 13,
    }


def test_contraction_is_one_word_and_hyphen_parts_are_two() -> None:
    assert read_features("don't re-open it").words == 4


def test_bins_are_crc32_of_the_gram() -> None:
    check_value_of_crc32 = 0xCBF43926
    assert bin_of("123456789") == check_value_of_crc32 % BINS


def test_repeated_words_are_counted_and_neighbours_joined() -> None:
    read = read_features("Row row row")
    counted = dict(zip(read.bins, read.counts, strict=True))
    assert counted == {bin_of("row"): 3, bin_of("row row"): 2}
    assert ngrams(["a", "b", "c"]) == ["a", "b", "c", "a b", "b c"]


@pytest.mark.parametrize("text", ["", "?!", "…", "\x00"])
def test_text_without_words(text: str) -> None:
    read = read_features(text)
    assert read.words == 0
    assert read.bins == ()
    assert read.numbers == (0, 0, len(text), 0, 0)


def test_white_space_is_made_one() -> None:
    assert normalise("  a\tkite \n\n flies ") == "a kite flies"


@given(st.text())
def test_every_text_has_features_in_range(text: str) -> None:
    normal = normalise(text)
    read = read_features(normal)
    assert normalise(normal) == normal
    assert list(read.bins) == sorted(set(read.bins))
    assert all(0 <= place < BINS for place in read.bins)
    assert sum(read.counts) == read.words + max(0, read.words - 1)
    assert 0 <= read.numbers[1] <= read.numbers[0]
    assert all(0 <= share <= 1 for share in read.numbers[3:])
