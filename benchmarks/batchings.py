"""Random batchings of rows of mixed length, bit for bit, by Assay's deterministic mode.

python -m benchmarks.batchings --model decoder --rows 200 --batchings 1000
"""

import argparse
import random
import sys
from array import array
from pathlib import Path
from typing import Any, get_args

import torch
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from assay_models.base import Input
from assay_models.families.classifier.parity import same_bits
from assay_models.families.classifier.tokenization import Encoded
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository
from benchmarks.models import checkpoint, write_card
from benchmarks.texts import ModelName

SEED = 20_261_125
MEDIAN, SIGMA, SHORTEST, LONGEST = 12.0, 0.8, 2, 256
AT_ONCE = 100


def main() -> None:
    """Try the batchings; the exit status is 1 if any row's bits changed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", choices=get_args(ModelName), default="encoder")
    add("--rows", type=int, default=200, help="how many there are (200)")
    add("--batchings", type=int, default=1000, help="how often they are cut into batches (1000)")
    add("--cache", type=Path, default=Path("work/benchmarks"), help="where the checkpoints are")
    given = parser.parse_args()
    classifier = _classifier(given.model, given.cache)
    arrangement = classifier.arrangement
    rows = mixed_rows(given.rows, classifier.tokenizer.vocab_size)
    print(f"{given.model}: {len(rows)} rows, {sum(row.tokens for row in rows)} tokens in all")
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress, torch.inference_mode():
        task = progress.add_task("batchings", total=given.batchings)
        for done in range(0, given.batchings, AT_ONCE):
            count = min(AT_ONCE, given.batchings - done)
            if not same_bits(arrangement, rows, count, seed=done):
                raise SystemExit(f"a row's bits changed, {done} batchings after the first")
            progress.update(task, advance=count)
    print(f"{given.batchings} random batchings, {arrangement.name}: every row has its own bits")


def mixed_rows(count: int, vocabulary: int) -> list[Input]:
    """Rows of random ids; their lengths are log-normal: many are short, a few are long."""
    chance = random.Random(SEED)  # noqa: S311 nothing is secret here
    made = []
    for _ in range(count):
        length = min(max(round(MEDIAN * chance.lognormvariate(0.0, SIGMA)), SHORTEST), LONGEST)
        ids = array("i", (chance.randrange(vocabulary) for _ in range(length)))
        made.append(Encoded(ids, array("i", bytes(4 * length))).input())
    return made


def _classifier(name: ModelName, cache: Path) -> Any:
    found = checkpoint(name, cache)
    write_card(found, None)
    repository = ModelRepository([found.weights.parent])
    entry = repository.find(found.card)
    family: Any = family_of(entry.card)
    runtime = Runtime(deterministic=True)
    return family.load(entry.card, repository.locate(entry), runtime).classifier


if __name__ == "__main__":
    main()
