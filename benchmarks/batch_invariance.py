"""Bit equality of rows of mixed length in random batchings, by Assay's deterministic mode.

python -m benchmarks.batch_invariance --model decoder --rows 200 --batchings 1000
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
from assay_models.families.classifier.parity import is_bit_equal
from assay_models.families.classifier.token_sequence import TokenSequence
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository
from benchmarks.models import make_checkpoint, write_card
from benchmarks.texts import ModelName

SEED = 20_261_125
MEDIAN_TOKENS, SIGMA, MIN_TOKENS, MAX_TOKENS = 12.0, 0.8, 2, 256
CHECK_EVERY = 100


def main() -> None:
    """Try the batchings.

    Raises:
        SystemExit: a row's bits changed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", choices=get_args(ModelName), default="encoder")
    add("--rows", type=int, default=200, help="number of rows (200)")
    add("--batchings", type=int, default=1000, help="number of random batchings (1000)")
    add("--cache", type=Path, default=Path("work/benchmarks"), help="where the checkpoints are")
    given = parser.parse_args()
    classifier = _load_classifier(given.model, given.cache)
    layout = classifier.layout
    rows = mixed_rows(given.rows, classifier.tokenizer.vocab_size)
    print(f"{given.model}: {len(rows)} rows, {sum(row.tokens for row in rows)} tokens in all")
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress, torch.inference_mode():
        task = progress.add_task("batchings", total=given.batchings)
        for done in range(0, given.batchings, CHECK_EVERY):
            count = min(CHECK_EVERY, given.batchings - done)
            if not is_bit_equal(layout, rows, count, seed=done):
                raise SystemExit(f"a row's bits changed, {done} batchings after the first")
            progress.update(task, advance=count)
    print(f"{given.batchings} random batchings, {layout.name}: every row has its own bits")


def mixed_rows(count: int, vocabulary: int) -> list[Input]:
    """Return rows of random ids; their lengths are log-normal: many are short, a few are long."""
    generator = random.Random(SEED)  # noqa: S311 nothing is secret here
    rows = []
    for _ in range(count):
        drawn = round(MEDIAN_TOKENS * generator.lognormvariate(0.0, SIGMA))
        length = min(max(drawn, MIN_TOKENS), MAX_TOKENS)
        ids = array("i", (generator.randrange(vocabulary) for _ in range(length)))
        rows.append(TokenSequence(ids, array("i", bytes(4 * length))).input())
    return rows


def _load_classifier(name: ModelName, cache: Path) -> Any:
    checkpoint = make_checkpoint(name, cache)
    write_card(checkpoint, None)
    repository = ModelRepository([checkpoint.weights.parent])
    entry = repository.find(checkpoint.card)
    family: Any = family_of(entry.card)
    runtime = Runtime(deterministic=True)
    return family.load(entry.card, repository.locate(entry), runtime).classifier


if __name__ == "__main__":
    main()
