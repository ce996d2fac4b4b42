"""The teacher of `nli-small`: probabilities by `nli` for the pairs that the student learns from."""

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from assay_models.families.classifier.checkpoint import Checkpoint
from assay_models.families.nli.model import NliOptions
from assay_models.repository import ModelRepository, embedded_root
from recipes.measure import read_jsonl
from recipes.nli.backbones import mpnet_folder
from recipes.nli.data import Pair
from recipes.nli.finetune import Target, encode_rows, gold_target, probabilities
from recipes.nli.recombination import (
    RecombinationConfig,
    by_source,
    sibling_pairs,
    swapped_pairs,
)

TEACHER = "nli@2"
MAX_TOKENS = 128
SOURCES_WITH_TEACHER = ("mnli", "snli", "cad", "fool_me_twice")
TEACHER_WEIGHT = 0.6
"""The teacher's share in the target of a pair that has a gold label."""


def teacher_targets(
    pairs: Sequence[Pair], config: RecombinationConfig, work: Path
) -> list[tuple[Pair, Target]]:
    """Return pairs with their targets, cached in the folder `work`.

    The pairs of most sources have the teacher's probabilities mixed with their labels, recombined
    ones the teacher's probabilities alone.
    """
    path = work / "teacher_targets.jsonl.gz"
    if not path.is_file():
        _write(path, _compute_targets(pairs, config))
    return [
        (Pair(**row["pair"]), (row["target"][0], row["target"][1], row["target"][2]))
        for row in read_jsonl(path)
    ]


def mix_with_label(teacher: Sequence[float], label: Target) -> list[float]:
    """Mix the teacher's probabilities and a gold label in one target."""
    return [
        TEACHER_WEIGHT * p + (1 - TEACHER_WEIGHT) * g for p, g in zip(teacher, label, strict=True)
    ]


def _compute_targets(
    pairs: Sequence[Pair], config: RecombinationConfig
) -> list[tuple[Pair, list[float]]]:
    generator = random.Random(config.seed)  # noqa: S311 nothing is secret here
    sources = by_source(pairs)
    labelled = [pair for source in SOURCES_WITH_TEACHER for pair in sources[source]]
    unlabelled = [
        *sibling_pairs(sources["mnli"], config.siblings, generator),
        *sibling_pairs(sources["snli"], config.caption_siblings, generator),
        *swapped_pairs(sources["mnli"], config.swapped, generator),
    ]
    folder, model = mpnet_folder(), _load_teacher()
    found: list[tuple[Pair, list[float]]] = []
    for group in (labelled, unlabelled):
        rows, pad_id = encode_rows(folder, group)
        short = [at for at, row in enumerate(rows) if len(row.ids) <= MAX_TOKENS]
        predicted = probabilities(model, [rows[at] for at in short], pad_id)
        for at, teacher in zip(short, predicted, strict=True):
            pair = group[at]
            target = mix_with_label(teacher, gold_target(pair)) if group is labelled else teacher
            found.append((pair, target))
    return found


def _load_teacher() -> Any:
    repository = ModelRepository([embedded_root()])
    entry = repository.find(TEACHER)
    options = entry.card.options_as(NliOptions)
    checkpoint = Checkpoint(entry.card, repository.locate(entry), options)
    return checkpoint.load_model(torch.float32).bfloat16()


def _write(path: Path, targets: Sequence[tuple[Pair, list[float]]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        for pair, target in targets:
            lines.write(json.dumps({"pair": asdict(pair), "target": target}) + "\n")
