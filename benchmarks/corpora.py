"""The corpora: what each workload scores, with the right scores of all of it."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cells import CACHED_BULK, GROUP_CELLS, STORM_DISTINCT, STORM_TIMES, Corpus, Scale
from benchmarks.models import Checkpoint
from benchmarks.texts import (
    CACHED_ITEM,
    GROUP_SIZE,
    SHORT_ITEM,
    ModelName,
    Text,
    Words,
    groups,
    long_tailed,
    of_length,
)
from benchmarks.truth import true_scores

SEEDS: Mapping[Corpus, int] = {
    "singles": 1,
    "bulk": 2,
    "idle": 3,
    "groups": 4,
    "cached": 5,
    "storm": 6,
}
MODEL_OF: Mapping[Corpus, ModelName] = {
    name: "decoder" if name == "groups" else "encoder" for name in SEEDS
}
BULK_PROMPT = 1024


@dataclass(frozen=True, slots=True)
class Scored:
    """Texts and their right scores."""

    texts: list[Text]
    truth: list[float]

    def part(self, start: int, count: int) -> "Scored":
        """Some of them."""
        return Scored(self.texts[start : start + count], self.truth[start : start + count])


def build(
    names: set[Corpus], found: Mapping[ModelName, Checkpoint], scale: Scale, cache: Path
) -> dict[Corpus, Scored]:
    """The corpora that a run needs."""
    words: dict[ModelName, Words] = {}
    scored = {}
    for name in sorted(names):
        checkpoint = found[MODEL_OF[name]]
        if checkpoint.name not in words:
            words[checkpoint.name] = Words(checkpoint.name, _tokenizer(checkpoint))
        texts = _texts(name, words[checkpoint.name], scale)
        scored[name] = Scored(texts, true_scores(checkpoint, texts, cache))
    return scored


def storm_of(storm: Scored, turn: int) -> Scored:
    """The items of one storm, each as often as it is asked, shuffled; every turn has its own."""
    distinct = storm.part(turn * STORM_DISTINCT, STORM_DISTINCT)
    pairs = list(zip(distinct.texts, distinct.truth, strict=True)) * STORM_TIMES
    random.Random(turn).shuffle(pairs)  # noqa: S311
    return Scored([text for text, _ in pairs], [score for _, score in pairs])


def groups_of(scored: Scored, cell: int, turn: int, scale: Scale) -> Scored:
    """The groups of one measurement, asked in no other, so that no prompt is known before."""
    count = scale.groups * GROUP_SIZE
    return scored.part((turn * GROUP_CELLS + cell) * count, count)


def _texts(name: Corpus, words: Words, scale: Scale) -> list[Text]:
    seed = SEEDS[name]
    match name:
        case "singles":
            return long_tailed(words, scale.singles, seed)
        case "bulk":
            return long_tailed(words, BULK_PROMPT, seed, siblings=BULK_PROMPT)
        case "idle":
            return of_length(words, SHORT_ITEM, 1, seed)
        case "groups":
            return groups(words, scale.groups * GROUP_CELLS * scale.long_repeats, seed)
        case "cached":
            return of_length(words, CACHED_ITEM, CACHED_BULK, seed, siblings=CACHED_BULK)
        case "storm":
            return of_length(words, CACHED_ITEM, STORM_DISTINCT * scale.repeats, seed)


def _tokenizer(checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint.weights)
