"""The teacher of `nli`: MPNet as a three-way cross-encoder, and its opinion on the pairs that the
student learns from."""

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import MPNetForSequenceClassification

from recipes.measure import read_jsonl
from recipes.nli.backbones import encoded, teacher_folder
from recipes.nli.data import LABELS, Pair
from recipes.nli.finetune import FineTuning, Plan, Row, Target, probabilities
from recipes.nli.pairs import Recombined, by_source, sibling_pairs, teacher_pairs, turned_pairs

PLAN = Plan(epochs=1.0, batch_size=32, rate=7e-5, first_layer=5)
LONGEST = 112
JUDGED = ("mnli", "snli", "cad", "fool_me_twice")
TRUST = 0.6
"""The share of the teacher's opinion in the target of a pair that has a gold label."""


def train_teacher(pairs: Sequence[Pair], work: Path) -> Path:
    """Train the teacher, unless `work` holds it; where its trained tensors lie."""
    path = work / "teacher.safetensors"
    if not path.is_file():
        torch.manual_seed(PLAN.seed)
        folder = teacher_folder(work)
        rows, pad_id = rows_of(folder, teacher_pairs(pairs, PLAN.seed))
        training = FineTuning(_mpnet(folder), rows, PLAN, pad_id)
        training.run()
        save_file({name: one.half() for name, one in training.trained().items()}, path)
    return path


def opinions(pairs: Sequence[Pair], made: Recombined, work: Path) -> list[tuple[Pair, Target]]:
    """The pairs of most sources with the teacher's opinion mixed into their labels, and recombined
    ones with its opinion alone; read from `work` where it holds them."""
    path = work / "opinions.jsonl.gz"
    if not path.is_file():
        _write(path, _judged(pairs, made, work))
    return [
        (Pair(**row["pair"]), (row["target"][0], row["target"][1], row["target"][2]))
        for row in read_jsonl(path)
    ]


def rows_of(folder: Path, pairs: Sequence[Pair]) -> tuple[list[Row], int]:
    """The rows of pairs of at most LONGEST tokens, with their gold labels."""
    ids, _, pad_id = encoded(folder, pairs)
    rows = [Row(one, None, gold(pair)) for one, pair in zip(ids, pairs, strict=True)]
    return [row for row in rows if len(row.ids) <= LONGEST], pad_id


def gold(pair: Pair) -> Target:
    """All the probability on the pair's label."""
    first, second, third = (float(pair.label == label) for label in LABELS)
    return first, second, third


def _judged(pairs: Sequence[Pair], made: Recombined, work: Path) -> list[tuple[Pair, list[float]]]:
    chance = random.Random(PLAN.seed)  # noqa: S311 nothing is secret here
    sources = by_source(pairs)
    related = [pair for source in JUDGED for pair in sources[source]]
    free = [
        *sibling_pairs(sources["mnli"], made.siblings, chance),
        *sibling_pairs(sources["snli"], made.caption_siblings, chance),
        *turned_pairs(sources["mnli"], made.turned, chance),
    ]
    folder = teacher_folder(work)
    ids, _, pad_id = encoded(folder, [*related, *free])
    model = _mpnet(folder)
    model.load_state_dict(load_file(work / "teacher.safetensors"), strict=False)
    model.bfloat16()
    kept = [at for at, one in enumerate(ids) if len(one) <= LONGEST]
    stated = probabilities(model, [Row(ids[at], None, (0.0, 0.0, 0.0)) for at in kept], pad_id)
    found = []
    for at, row in zip(kept, stated, strict=True):
        pair = [*related, *free][at]
        if at < len(related):
            row = [TRUST * p + (1 - TRUST) * g for p, g in zip(row, gold(pair), strict=True)]
        found.append((pair, row))
    return found


def _write(path: Path, judged: Sequence[tuple[Pair, list[float]]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        for pair, target in judged:
            lines.write(json.dumps({"pair": asdict(pair), "target": target}) + "\n")


def _mpnet(folder: Path) -> Any:
    return MPNetForSequenceClassification.from_pretrained(
        folder,
        num_labels=len(LABELS),
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        dtype=torch.float32,
    )
