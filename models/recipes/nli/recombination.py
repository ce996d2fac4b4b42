"""Training pairs: the given ones, and new ones made by recombining their sentences."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from recipes.nli.data import Pair

OPEN_MIX = {
    "mnli": 34_191,
    "cad": 16_554,
    "snli": 10_134,
    "fool_me_twice": 1_722,
    "folio": 1_003,
    "help": 1_500,
}
"""Pairs of each source with an open licence that `nli` learns from, in whole rounds and a part of
one."""

ALL_TIERS_MIX = {
    "mnli": 22_794,
    "lingnli": 24_000,
    "cad": 8_277,
    "snli": 8_000,
    "fool_me_twice": 861,
    "folio": 1_003,
    "help": 1_500,
    "climate_fever": 3_000,
    "nli4ct": 1_679,
    "healthver": 76,
}
"""The same for all sources that may be trained on."""

RECOMBINED_SOURCES = {"mnli": 11_397, "snli": 4_000, "fool_me_twice": 861, "cad": 2_000}
"""Pairs of each source among which those to recombine for `nli` are drawn."""

STUDENT_SOURCES = {"help": 2_000, "folio": 1_003}
"""Pairs of each source that the student learns from by their labels alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecombinationConfig:
    """The number of pairs of each kind to make."""

    siblings: int = 16_000
    caption_siblings: int = 4_000
    swapped: int = 4_000
    unrelated: int = 3_000
    distracted: int = 1_500
    seed: int = 1


def mixed_pairs(
    pairs: Sequence[Pair],
    mix: Mapping[str, int],
    *,
    unrelated: int = 2_500,
    distracted: int = 2_000,
    seed: int = 1,
) -> list[Pair]:
    """Return the training pairs of `nli`: `mix` pairs of each source, and recombined ones."""
    generator = random.Random(seed)  # noqa: S311 nothing is secret here
    sources = by_source(pairs)
    mixed = _repeat(sources, mix, generator)
    candidates = _repeat(sources, RECOMBINED_SOURCES, generator)
    mixed += unrelated_pairs(candidates, unrelated, generator)
    return mixed + distracted_pairs(candidates, distracted, generator)


def labelled_pairs(pairs: Sequence[Pair], config: RecombinationConfig) -> list[Pair]:
    """Return the pairs that the student learns by labels alone: a part of some sources, and pairs
    recombined in ways that leave no doubt of the label."""
    generator = random.Random(config.seed)  # noqa: S311 nothing is secret here
    labelled = _repeat(by_source(pairs), STUDENT_SOURCES, generator)
    labelled += unrelated_pairs(pairs, config.unrelated, generator)
    return labelled + distracted_pairs(pairs, config.distracted, generator)


def unrelated_pairs(pairs: Sequence[Pair], count: int, generator: random.Random) -> list[Pair]:
    """Put hypotheses under the premise of another pair of their source; their label is neutral."""
    sources = by_source(pairs)
    made = []
    for pair in generator.sample(list(pairs), min(count, len(pairs))):
        other = generator.choice(sources[pair.source])
        if pair.premise != other.premise:
            made.append(replace(pair, premise=other.premise, label="neutral"))
    return made


def distracted_pairs(pairs: Sequence[Pair], count: int, generator: random.Random) -> list[Pair]:
    """Put the premise of another pair of the same source before or after a pair's own premise.

    The label stays: a consequence of the premise is still one.
    """
    sources = by_source(pairs)
    made = []
    for pair in generator.sample(list(pairs), min(count, len(pairs))):
        texts = [pair.premise, generator.choice(sources[pair.source]).premise]
        generator.shuffle(texts)
        made.append(replace(pair, premise=" ".join(texts)))
    return made


def sibling_pairs(pairs: Sequence[Pair], count: int, generator: random.Random) -> list[Pair]:
    """Pair two hypotheses of one premise; only a teacher can label such a pair."""
    siblings: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        siblings[pair.source, pair.premise].append(pair)
    made = [
        replace(second, premise=first.hypothesis)
        for group in siblings.values()
        for first, second in permutations(group, 2)
    ]
    return generator.sample(made, min(count, len(made)))


def swapped_pairs(pairs: Sequence[Pair], count: int, generator: random.Random) -> list[Pair]:
    """Swap premise and hypothesis; only a teacher can label such a pair."""
    drawn = generator.sample(list(pairs), min(count, len(pairs)))
    return [replace(pair, premise=pair.hypothesis, hypothesis=pair.premise) for pair in drawn]


def by_source(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Group the pairs by source, in their order."""
    sources: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        sources[pair.source].append(pair)
    return sources


def _repeat(
    sources: Mapping[str, Sequence[Pair]], counts: Mapping[str, int], generator: random.Random
) -> list[Pair]:
    """Take `counts` pairs of each source: all of them as often as they fit, and a random rest."""
    taken: list[Pair] = []
    for source, count in counts.items():
        pairs = list(sources[source])
        rounds, rest = divmod(count, len(pairs)) if pairs else (0, 0)
        taken += [*pairs * rounds, *generator.sample(pairs, rest)]
    return taken
