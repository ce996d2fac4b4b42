"""Measure `code@2`, as it is served, on held-out pairs, beside trivial rules.

Every program is wrapped in one fenced block, as a policy would write it. The model accepts every
language here, also those that its card does not. Pairs with a side that could not be scored (longer
than the model's limit) are left out of the accuracy and counted.
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
from recipes.code.command_line import build_parser, parse_arguments
from recipes.code.data import Pair, read_pairs
from recipes.code.smoke import SMOKE
from recipes.measure import (
    Estimate,
    cluster_bootstrap,
    load_model,
    pair_accuracy,
    score_items,
)

EXAMPLE = "python -m recipes.code.evaluate --data ../shared/data --check"
TOLERANCE = 0.005
SAMPLE_SEED = 5


@dataclass(frozen=True, slots=True)
class Dataset:
    """A set of pairs in one language: its name on the card, its file, and the number of pairs drawn
    from it (all by default)."""

    name: str
    file: str
    limit: int | None = None
    language: Language = "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetResult:
    """The result on one dataset.

    Attributes:
        accuracy: the model's.
        longer: accuracy of preferring the longer program, on the same pairs.
        shorter: accuracy of preferring the shorter program, on the same pairs.
        gain: the model's accuracy less that of the longer program.
        unscored: pairs with a side that could not be scored.
        invalid: pairs with a side without a valid program.
    """

    accuracy: Estimate
    longer: Estimate
    shorter: Estimate
    gain: Estimate
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
"""The score of each (prompt, program), None where it could not be scored."""


def read_dataset(dataset: Dataset, data: Path) -> list[Pair]:
    """Read the dev pairs of a dataset; a limited one is drawn with a fixed seed."""
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
    """Score each distinct program for its prompt; None for what could not be scored."""
    wanted = {(pair.prompt, side) for pair in pairs for side in (pair.chosen, pair.rejected)}
    scores: Scores = dict.fromkeys(sorted(wanted))
    items = {
        key: CodeItem(prompt=key[0], response=fenced(key[1], language), language=language)
        for key in scores
    }
    fitting = [key for key, item in items.items() if fits_limit(model, item)]
    found = score_items(model, [items[key] for key in fitting], Options(), batch_size)
    scores.update(zip(fitting, found, strict=True))
    return scores


def fits_limit(model: RewardModel, item: CodeItem) -> bool:
    """Return whether prompt and program are within the model's limit."""
    try:
        model.prepare([item], Options())
    except ItemError as error:
        if error.code == "input_too_long":
            return False
        raise
    return True


def fenced(program: str, language: Language = "python") -> str:
    """Return a program in a fenced block, as a policy writes it."""
    return f"```{language}\n{program}\n```"


def evaluate_pairs(pairs: Sequence[Pair], scores: Scores) -> DatasetResult:
    """Estimate accuracies of the model, of the longer and of the shorter program, ties one half."""
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
    return DatasetResult(
        accuracy=pair_accuracy(margins.tolist(), clusters),
        longer=pair_accuracy(longer.tolist(), clusters),
        shorter=pair_accuracy((-longer).tolist(), clusters),
        gain=cluster_bootstrap(lambda rows: float(differences[rows].mean()), clusters),
        unscored=len(pairs) - len(scored),
        invalid=sum(better.raw is None or worse.raw is None for _, better, worse in scored),
    )


def smoke_table(model: RewardModel) -> list[tuple[str, float, float]]:
    """Return name, score of the correct and of the wrong solution, for each small problem."""
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
    """Return mean, deviation and quantiles of the served scores, as `reference.json` holds them."""
    values = np.array([score.score for score in scores.values() if score is not None])
    points = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
    return {
        "n": len(values),
        "mean": round(float(values.mean()), 5),
        "std": round(float(values.std()), 5),
        "quantiles": {str(point): round(float(np.quantile(values, point)), 5) for point in points},
    }


def evaluate_datasets(
    data: Path, model: RewardModel, batch_size: int, datasets: Sequence[Dataset] = DATASETS
) -> dict[str, DatasetResult]:
    """Evaluate the datasets and print a line for each when it is done."""
    results = {}
    for dataset in datasets:
        started = time.monotonic()
        pairs = read_dataset(dataset, data)
        scores = score_programs(model, pairs, batch_size, dataset.language)
        result = results[dataset.name] = evaluate_pairs(pairs, scores)
        rate = len(scores) / (time.monotonic() - started)
        print(f"{dataset.name:28} {_line(result)}  {rate:.1f} programs/s", flush=True)
        if dataset is DATASETS[0]:
            print(f"reference {json.dumps(reference_statistics(scores))}", flush=True)
    return results


def _line(result: DatasetResult) -> str:
    gain = result.gain
    return (
        f"{result.accuracy}  longer {result.longer.value:.3f}"
        f"  shorter {result.shorter.value:.3f}"
        f"  over longer {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        f"  could not score {result.unscored}"
        f"  invalid {result.invalid}"
    )


def differences_from_card(card: ModelCard, results: dict[str, DatasetResult]) -> list[str]:
    """List where the card's figures and the measured ones differ by more than the tolerance."""
    differences = []
    stated = {quality.dataset: quality for quality in card.quality}
    differences += [f"{name}: of no set here" for name in stated.keys() - _NAMES]
    for name, result in results.items():
        if name not in stated:
            differences.append(f"{name}: not on the card")
        elif _largest_difference(stated[name], result.accuracy) > TOLERANCE:
            differences.append(f"{name}: card {stated[name]}, measured {result.accuracy}")
    return differences


def _largest_difference(stated: Quality, found: Estimate) -> float:
    pairs = [(stated.value, found.value), (stated.low, found.low), (stated.high, found.high)]
    return max(abs(left - right) for left, right in pairs)


def main() -> None:
    """Parse the command line, measure, and compare with the card where asked to.

    Raises:
        SystemExit: with `--check`, the card differs.
    """
    parser = build_parser(__doc__, EXAMPLE, "repository", "check", "batch_size")
    parser.add_argument("--only", default="", help="only the sets whose name holds this")
    arguments = parse_arguments(parser)
    card, model = load_model("code@2", arguments.repository, languages=LANGUAGES)
    for name, correct, wrong in smoke_table(model):
        print(f"{name:28} correct {correct:.3f}  wrong {wrong:.3f}  {correct - wrong:+.3f}")
    datasets = [dataset for dataset in DATASETS if arguments.only in dataset.name]
    results = evaluate_datasets(arguments.data, model, arguments.batch_size, datasets)
    if arguments.check:
        differences = differences_from_card(card, results)
        raise SystemExit("\n".join(differences) if differences else 0)


if __name__ == "__main__":
    main()
