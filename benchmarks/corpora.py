"""The corpora: the texts that each workload scores, with their expected scores."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.expected_scores import expected_scores
from benchmarks.models import Checkpoint
from benchmarks.scenarios import (
    CACHED_BULK,
    GROUP_SCENARIOS,
    STAMPEDE_DISTINCT,
    STAMPEDE_TIMES,
    Corpus,
    Scale,
)
from benchmarks.texts import (
    CACHED_ITEM_TOKENS,
    GROUP_SIZE,
    SHORT_ITEM_TOKENS,
    ModelName,
    Text,
    Words,
    groups,
    long_tailed,
    of_length,
)

SEEDS: Mapping[Corpus, int] = {
    "singles": 1,
    "bulk": 2,
    "idle": 3,
    "groups": 4,
    "cached": 5,
    "stampede": 6,
}
MODEL_OF: Mapping[Corpus, ModelName] = {
    name: "decoder" if name == "groups" else "encoder" for name in SEEDS
}
BULK_ITEMS = 1024


@dataclass(frozen=True, slots=True)
class ScoredTexts:
    """Texts and their expected scores."""

    texts: list[Text]
    expected: list[float]

    def part(self, start: int, count: int) -> "ScoredTexts":
        """Return `count` of them from `start`."""
        end = start + count
        return ScoredTexts(self.texts[start:end], self.expected[start:end])


def build_corpora(
    names: set[Corpus], checkpoints: Mapping[ModelName, Checkpoint], scale: Scale, cache: Path
) -> dict[Corpus, ScoredTexts]:
    """Build the corpora that a run needs."""
    words: dict[ModelName, Words] = {}
    corpora = {}
    for name in sorted(names):
        checkpoint = checkpoints[MODEL_OF[name]]
        if checkpoint.name not in words:
            words[checkpoint.name] = Words(checkpoint.name, _load_tokenizer(checkpoint))
        texts = _texts(name, words[checkpoint.name], scale)
        corpora[name] = ScoredTexts(texts, expected_scores(checkpoint, texts, cache))
    return corpora


def stampede_texts(scored: ScoredTexts, repeat: int) -> ScoredTexts:
    """Return the items of one stampede, each as often as it is requested, shuffled.

    Every repeat has its own items.
    """
    distinct = scored.part(repeat * STAMPEDE_DISTINCT, STAMPEDE_DISTINCT)
    pairs = list(zip(distinct.texts, distinct.expected, strict=True)) * STAMPEDE_TIMES
    random.Random(repeat).shuffle(pairs)  # noqa: S311
    return ScoredTexts([text for text, _ in pairs], [score for _, score in pairs])


def group_texts(scored: ScoredTexts, scenario: int, repeat: int, scale: Scale) -> ScoredTexts:
    """Return the groups of one measurement; no other has them, so that no prompt is cached."""
    count = scale.groups * GROUP_SIZE
    return scored.part((repeat * GROUP_SCENARIOS + scenario) * count, count)


def _texts(name: Corpus, words: Words, scale: Scale) -> list[Text]:
    seed = SEEDS[name]
    match name:
        case "singles":
            return long_tailed(words, scale.singles, seed)
        case "bulk":
            return long_tailed(words, BULK_ITEMS, seed, siblings=BULK_ITEMS)
        case "idle":
            return of_length(words, SHORT_ITEM_TOKENS, count=1, seed=seed)
        case "groups":
            return groups(words, scale.groups * GROUP_SCENARIOS * scale.long_repeats, seed)
        case "cached":
            tokens, count = CACHED_ITEM_TOKENS, CACHED_BULK
            return of_length(words, tokens, count=count, seed=seed, siblings=count)
        case "stampede":
            count = STAMPEDE_DISTINCT * scale.repeats
            return of_length(words, CACHED_ITEM_TOKENS, count=count, seed=seed)


def _load_tokenizer(checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint.weights)
