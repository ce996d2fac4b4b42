"""Measures `code@2` through the waist on held-out pairs, beside what trivial rules reach.

Every program is wrapped in one fenced block, as a policy would write it. The model accepts every
language here, also those that its card does not. Pairs with a side that
could not be scored (longer than the model's limit) are left out of the figure and counted.
"""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay_models.base import ItemError, Options, RewardModel, Score
from assay_models.card import ModelCard, Quality
from assay_models.extraction import LANGUAGES, Language
from assay_models.items import CodeItem
from recipes.code.command import parsed, parser_of
from recipes.code.data import Pair, read_pairs
from recipes.code.smoke import SMOKE
from recipes.measure import (
    Figure,
    cluster_bootstrap,
    load_embedded,
    pair_accuracy,
    score_items,
)

EXAMPLE = "python -m recipes.code.evaluate --data ../shared/data --check"
TOLERANCE = 0.005
SAMPLE_SEED = 5


@dataclass(frozen=True, slots=True)
class Dataset:
    """One set of pairs in one language: its name on the card, its file, and how many pairs are
    drawn from it."""

    name: str
    file: str
    limit: int | None = None
    language: Language = "python"


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one set: the model's figure, the two rules' figures on the same pairs, what the
    model has over the longer program, and how many pairs had a side that could not be scored, or
    no valid program."""

    figure: Figure
    longer: Figure
    shorter: Figure
    gain: Figure
    unscored: int
    invalid: int


DATASETS = (
    Dataset("natural dev", "pairs_natural_dev"),
    Dataset("HumanEvalFix dev, Python", "pairs_humanevalfix"),
    Dataset("mutation dev (300 drawn)", "pairs_mutation_dev", 300),
    Dataset("student dev", "pairs_student"),
    Dataset("DebugBench dev, Python", "pairs_debugbench_python"),
    Dataset("contest dev, Python", "pairs_contest"),
    Dataset("BigCodeBench dev", "pairs_bigcodebench"),
    Dataset("HumanEvalFix dev, JavaScript", "pairs_humanevalfix", language="javascript"),
    Dataset("HumanEvalFix dev, Java", "pairs_humanevalfix", language="java"),
    Dataset("HumanEvalFix dev, Go", "pairs_humanevalfix", language="go"),
    Dataset("HumanEvalFix dev, C++", "pairs_humanevalfix", language="cpp"),
    Dataset("HumanEvalFix dev, Rust", "pairs_humanevalfix", language="rust"),
)
_NAMES = {dataset.name for dataset in DATASETS}
Scores = dict[tuple[str, str], Score | None]


def pairs_of(dataset: Dataset, data: Path) -> list[Pair]:
    """The dev pairs of a set; a limited one is drawn with a fixed seed."""
    pairs = [
        pair
        for row, pair in read_pairs(data, dataset.file, "dev")
        if row["language"] == dataset.language
    ]
    if dataset.limit is None or len(pairs) <= dataset.limit:
        return pairs
    return random.Random(SAMPLE_SEED).sample(pairs, dataset.limit)  # noqa: S311 - a sample


def score_programs(
    model: RewardModel, pairs: Sequence[Pair], batch_size: int, language: Language = "python"
) -> Scores:
    """The score of each distinct program for its prompt; None for what could not be scored."""
    wanted = {(pair.prompt, side) for pair in pairs for side in (pair.chosen, pair.rejected)}
    scores: Scores = dict.fromkeys(sorted(wanted))
    items = {
        key: CodeItem(prompt=key[0], response=fenced(key[1], language), language=language)
        for key in scores
    }
    able = [key for key, item in items.items() if can_be_scored(model, item)]
    found = score_items(model, [items[key] for key in able], Options(), batch_size)
    scores.update(zip(able, found, strict=True))
    return scores


def can_be_scored(model: RewardModel, item: CodeItem) -> bool:
    """Whether prompt and program are within the model's limit."""
    try:
        model.prepare([item], Options())
    except ItemError as error:
        if error.code == "input_too_long":
            return False
        raise
    return True


def fenced(program: str, language: Language = "python") -> str:
    """A program as a policy writes it."""
    return f"```{language}\n{program}\n```"


def measure(pairs: Sequence[Pair], scores: Scores) -> Measured:
    """Pair accuracies of the model, of the longer and of the shorter program, ties one half."""
    sides = [
        (scores[pair.prompt, pair.chosen], scores[pair.prompt, pair.rejected]) for pair in pairs
    ]
    scored = [
        (pair, better, worse)
        for pair, (better, worse) in zip(pairs, sides, strict=True)
        if better is not None and worse is not None
    ]
    clusters = [pair.problem for pair, _, _ in scored]
    if len(set(clusters)) == 1:  # one problem has no interval over problems
        clusters = [pair.chosen for pair, _, _ in scored]
    margins = np.array([better.score - worse.score for _, better, worse in scored])
    longer = np.array([len(pair.chosen) - len(pair.rejected) for pair, _, _ in scored])
    differences = (np.sign(margins) - np.sign(longer)) / 2
    return Measured(
        pair_accuracy(margins.tolist(), clusters),
        pair_accuracy(longer.tolist(), clusters),
        pair_accuracy((-longer).tolist(), clusters),
        cluster_bootstrap(lambda rows: float(differences[rows].mean()), clusters),
        len(pairs) - len(scored),
        sum(better.raw is None or worse.raw is None for _, better, worse in scored),
    )


def smoke_table(model: RewardModel) -> list[tuple[str, float, float]]:
    """Name, score of the correct and of the subtly wrong solution, for each small problem."""
    rows = []
    for case in SMOKE:
        items = [
            CodeItem(prompt=case.prompt, response=fenced(program))
            for program in (case.correct, case.wrong)
        ]
        correct, wrong = score_items(model, items, Options())
        rows.append((case.name, correct.score, wrong.score))
    return rows


def reference_statistics(scores: Scores) -> dict[str, Any]:
    """Mean, deviation and quantiles of the served scores, as `reference.json` holds them."""
    values = np.array([score.score for score in scores.values() if score is not None])
    points = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
    return {
        "n": len(values),
        "mean": round(float(values.mean()), 5),
        "std": round(float(values.std()), 5),
        "quantiles": {str(point): round(float(np.quantile(values, point)), 5) for point in points},
    }


def evaluate(
    data: Path, model: RewardModel, batch_size: int, datasets: Sequence[Dataset] = DATASETS
) -> dict[str, Measured]:
    """Measure the sets, one line each as it is done."""
    results = {}
    for dataset in datasets:
        started = time.monotonic()
        pairs = pairs_of(dataset, data)
        scores = score_programs(model, pairs, batch_size, dataset.language)
        found = results[dataset.name] = measure(pairs, scores)
        rate = len(scores) / (time.monotonic() - started)
        print(
            f"{dataset.name:28} {found.figure}  longer {found.longer.value:.3f}"
            f"  shorter {found.shorter.value:.3f}"
            f"  over longer {found.gain.value:+.3f} [{found.gain.low:+.3f}, {found.gain.high:+.3f}]"
            f"  could not score {found.unscored}"
            f"  invalid {found.invalid}  {rate:.1f} programs/s",
            flush=True,
        )
        if dataset is DATASETS[0]:
            print(f"reference {json.dumps(reference_statistics(scores))}", flush=True)
    return results


def check(card: ModelCard, results: dict[str, Measured]) -> list[str]:
    """Where the card's figures and the measured ones differ by more than the tolerance."""
    complaints = []
    stated = {quality.dataset: quality for quality in card.quality}
    complaints += [f"{name}: of no set here" for name in stated.keys() - _NAMES]
    for name, found in results.items():
        if name not in stated:
            complaints.append(f"{name}: not on the card")
        elif _farthest(stated[name], found.figure) > TOLERANCE:
            complaints.append(f"{name}: card {stated[name]}, measured {found.figure}")
    return complaints


def _farthest(stated: Quality, found: Figure) -> float:
    pairs = [(stated.value, found.value), (stated.low, found.low), (stated.high, found.high)]
    return max(abs(one - other) for one, other in pairs)


def main() -> None:
    """Parse the command line, measure, and compare with the card where asked to."""
    parser = parser_of(__doc__, EXAMPLE, "check", "batch_size")
    parser.add_argument("--only", default="", help="only the sets whose name holds this")
    arguments = parsed(parser)
    card, model = load_embedded("code@2", languages=LANGUAGES)
    for name, correct, wrong in smoke_table(model):
        print(f"{name:28} correct {correct:.3f}  wrong {wrong:.3f}  {correct - wrong:+.3f}")
    datasets = [dataset for dataset in DATASETS if arguments.only in dataset.name]
    results = evaluate(arguments.data, model, arguments.batch_size, datasets)
    if arguments.check:
        complaints = check(card, results)
        raise SystemExit("\n".join(complaints) if complaints else 0)


if __name__ == "__main__":
    main()
