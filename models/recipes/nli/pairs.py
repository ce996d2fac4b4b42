"""Training pairs: the given ones, and those that recombining their sentences makes."""

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
"""How many pairs of each source `nli` learns from, in whole rounds and a part of one: of those
whose licences are open."""

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
"""The same, of all that may be trained on."""

MIXED_IN = {"mnli": 11_397, "snli": 4_000, "fool_me_twice": 861, "cad": 2_000}
"""Of how many pairs of each source some are recombined for it."""

STUDENT_SHARES = {"help": 2_000, "folio": 1_003}
"""Pairs of each source that the student learns from by their labels alone."""


@dataclass(frozen=True, slots=True)
class Recombined:
    """How many pairs of each kind to make."""

    siblings: int = 16_000
    caption_siblings: int = 4_000
    turned: int = 4_000
    unrelated: int = 3_000
    distracted: int = 1_500
    seed: int = 1


def mixed_pairs(
    pairs: Sequence[Pair],
    mix: Mapping[str, int],
    unrelated: int = 2_500,
    distracted: int = 2_000,
    seed: int = 1,
) -> list[Pair]:
    """So many pairs of each source, and some of those sources' recombined."""
    chance = random.Random(seed)  # noqa: S311 nothing is secret here
    sources = by_source(pairs)
    chosen = [
        one for source, count in mix.items() for one in _rounds(sources[source], count, chance)
    ]
    few = [one for source, n in MIXED_IN.items() for one in _rounds(sources[source], n, chance)]
    chosen += unrelated_pairs(few, unrelated, chance)
    return chosen + distracted_pairs(few, distracted, chance)


def labelled_pairs(pairs: Sequence[Pair], made: Recombined) -> list[Pair]:
    """What the student learns by labels alone: a part of some sources, and pairs recombined in ways
    that leave no doubt of the label."""
    chance = random.Random(made.seed)  # noqa: S311 nothing is secret here
    sources = by_source(pairs)
    chosen: list[Pair] = []
    for source, count in STUDENT_SHARES.items():
        chosen += _rounds(sources[source], count, chance)
    chosen += unrelated_pairs(pairs, made.unrelated, chance)
    return chosen + distracted_pairs(pairs, made.distracted, chance)


def unrelated_pairs(pairs: Sequence[Pair], count: int, chance: random.Random) -> list[Pair]:
    """Hypotheses under the premise of another pair of their source: neutral, it is silent."""
    sources = by_source(pairs)
    made = []
    for one in chance.sample(list(pairs), min(count, len(pairs))):
        made += _stranger(one, chance.choice(sources[one.source]))
    return made


def distracted_pairs(pairs: Sequence[Pair], count: int, chance: random.Random) -> list[Pair]:
    """Pairs whose premise has that of another pair of its source before or behind it; what follows
    from it still follows."""
    sources = by_source(pairs)
    made = []
    for one in chance.sample(list(pairs), min(count, len(pairs))):
        texts = [one.premise, chance.choice(sources[one.source]).premise]
        chance.shuffle(texts)
        made.append(replace(one, premise=" ".join(texts)))
    return made


def sibling_pairs(pairs: Sequence[Pair], count: int, chance: random.Random) -> list[Pair]:
    """Two hypotheses of one premise, one as the premise of the other; only a teacher can say."""
    families: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for one in pairs:
        families[one.source, one.premise].append(one)
    made = [
        replace(second, premise=first.hypothesis)
        for family in families.values()
        for first, second in permutations(family, 2)
    ]
    return chance.sample(made, min(count, len(made)))


def turned_pairs(pairs: Sequence[Pair], count: int, chance: random.Random) -> list[Pair]:
    """Premise and hypothesis in each other's place; only a teacher can say."""
    chosen = chance.sample(list(pairs), min(count, len(pairs)))
    return [replace(one, premise=one.hypothesis, hypothesis=one.premise) for one in chosen]


def by_source(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each source, in their order."""
    sources: dict[str, list[Pair]] = defaultdict(list)
    for one in pairs:
        sources[one.source].append(one)
    return sources


def _stranger(one: Pair, other: Pair) -> list[Pair]:
    if one.premise == other.premise:
        return []
    return [replace(one, premise=other.premise, label="neutral")]


def _rounds(pairs: Sequence[Pair], count: int, chance: random.Random) -> list[Pair]:
    whole, rest = divmod(count, len(pairs)) if pairs else (0, 0)
    return [*list(pairs) * whole, *chance.sample(list(pairs), rest)]
