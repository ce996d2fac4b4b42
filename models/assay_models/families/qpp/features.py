"""Features of a query that need no weights: five word features and hashed word n-grams."""

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

VERSION = 2
BINS = 2**15

FEATURES = (
    "words",
    "distinct_words",
    "characters",
    "conjunctions_per_word",
    "prepositions_per_word",
)

CONJUNCTIONS = frozenset({"and", "but", "for", "nor", "or", "so", "yet"})

_PREPOSITIONS = """
about above across after against along amid among around as at before behind below beneath
beside besides between beyond by despite down during except for from in inside into like near of
off on onto out outside over past per round since through throughout till to toward towards
under underneath until up upon via with within without
"""
PREPOSITIONS = frozenset(_PREPOSITIONS.split())

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


@dataclass(frozen=True, slots=True)
class QueryFeatures:
    """One query's features: `numbers` in the order of `FEATURES`, and the n-grams as ascending
    `bins` with the number of occurrences of each (`counts`, of the same length)."""

    words: int
    numbers: tuple[float, ...]
    bins: tuple[int, ...]
    counts: tuple[int, ...]


def words_of(text: str) -> list[str]:
    """Return the words in order, in lower case."""
    return _WORD.findall(text.lower())


def read_features(text: str) -> QueryFeatures:
    """Return the features of a normalised query; words are compared without case."""
    words = words_of(text)
    numbers = (
        float(len(words)),
        float(len(set(words))),
        float(len(text)),
        _share(words, CONJUNCTIONS),
        _share(words, PREPOSITIONS),
    )
    counted = sorted(Counter(bin_of(gram) for gram in ngrams(words)).items())
    bins = tuple(place for place, _ in counted)
    return QueryFeatures(len(words), numbers, bins, tuple(count for _, count in counted))


def ngrams(words: Sequence[str]) -> list[str]:
    """Return the words, then each two adjacent ones joined by a blank."""
    return [*words, *(f"{left} {right}" for left, right in pairwise(words))]


def bin_of(gram: str) -> int:
    """Return the bin of an n-gram: CRC-32 of its UTF-8 bytes, the same on every machine."""
    return zlib.crc32(gram.encode("utf-8", "surrogatepass")) % BINS


def _share(words: Sequence[str], members: frozenset[str]) -> float:
    return sum(word in members for word in words) / max(1, len(words))
