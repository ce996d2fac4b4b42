"""The teacher of `nli-small`: the opinion of `nli` on the pairs that the student learns from."""

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
from recipes.nli.finetune import Target, gold, probabilities, rows_of
from recipes.nli.pairs import Recombined, by_source, sibling_pairs, turned_pairs

TEACHER = "nli@2"
LONGEST = 128
JUDGED = ("mnli", "snli", "cad", "fool_me_twice")
TRUST = 0.6
"""The share of the teacher's opinion in the target of a pair that has a gold label."""


def opinions(pairs: Sequence[Pair], made: Recombined, work: Path) -> list[tuple[Pair, Target]]:
    """The pairs of most sources with the teacher's opinion mixed into their labels, and recombined
    ones with its opinion alone; read from `work` where it holds them."""
    path = work / "opinions.jsonl.gz"
    if not path.is_file():
        _write(path, _judged(pairs, made))
    return [
        (Pair(**row["pair"]), (row["target"][0], row["target"][1], row["target"][2]))
        for row in read_jsonl(path)
    ]


def mixed(opinion: Sequence[float], label: Target) -> list[float]:
    """A teacher's opinion and a gold label in one target."""
    return [TRUST * p + (1 - TRUST) * g for p, g in zip(opinion, label, strict=True)]


def _judged(pairs: Sequence[Pair], made: Recombined) -> list[tuple[Pair, list[float]]]:
    chance = random.Random(made.seed)  # noqa: S311 nothing is secret here
    sources = by_source(pairs)
    related = [pair for source in JUDGED for pair in sources[source]]
    free = [
        *sibling_pairs(sources["mnli"], made.siblings, chance),
        *sibling_pairs(sources["snli"], made.caption_siblings, chance),
        *turned_pairs(sources["mnli"], made.turned, chance),
    ]
    folder, model = mpnet_folder(), _teacher()
    found: list[tuple[Pair, list[float]]] = []
    for chosen in (related, free):
        rows, pad_id = rows_of(folder, chosen)
        short = [at for at, row in enumerate(rows) if len(row.ids) <= LONGEST]
        stated = probabilities(model, [rows[at] for at in short], pad_id)
        for at, opinion in zip(short, stated, strict=True):
            target = mixed(opinion, gold(chosen[at])) if chosen is related else opinion
            found.append((chosen[at], target))
    return found


def _teacher() -> Any:
    repository = ModelRepository([embedded_root()])
    entry = repository.find(TEACHER)
    options = entry.card.options_as(NliOptions)
    checkpoint = Checkpoint(entry.card, repository.locate(entry), options)
    return checkpoint.load_model(torch.float32).bfloat16()


def _write(path: Path, judged: Sequence[tuple[Pair, list[float]]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        for pair, target in judged:
            lines.write(json.dumps({"pair": asdict(pair), "target": target}) + "\n")
