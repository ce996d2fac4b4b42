"""The sentence pairs, their tiers of licence, and batches of similar length."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from recipes.measure import read_jsonl

LABELS = ("entailment", "neutral", "contradiction")
OPEN_TIERS = frozenset({"A", "B"})
"""Open licences, and those that ask for attribution or sharing alike."""

TRAINED_SOURCES = frozenset({"cad", "folio", "fool_me_twice", "help", "mnli", "snli"})
"""The sources that have rows of these tiers in the training set."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A premise with a hypothesis, and the label of the hypothesis given the premise."""

    premise: str
    hypothesis: str
    _: KW_ONLY
    label: str
    source: str
    tier: str


def read_pairs(path: Path, tiers: frozenset[str] | None = None) -> list[Pair]:
    """Read the pairs of one file, of all tiers or of some."""
    return [
        Pair(
            row["premise"],
            row["hypothesis"],
            label=row["label"],
            source=row["source"],
            tier=row["tier"],
        )
        for row in read_jsonl(path)
        if tiers is None or row["tier"] in tiers
    ]


def batches_by_length(
    lengths: Sequence[int], size: int, generator: random.Random, window: int = 50
) -> Iterator[list[int]]:
    """Yield indices in batches of near-equal length.

    They are shuffled, sorted within windows of batches, and the batches shuffled again, so that
    there is little padding and the order stays random.
    """
    order = list(range(len(lengths)))
    generator.shuffle(order)
    batches = []
    for start in range(0, len(order), size * window):
        near = sorted(order[start : start + size * window], key=lengths.__getitem__)
        batches += [near[first : first + size] for first in range(0, len(near), size)]
    generator.shuffle(batches)
    yield from batches
