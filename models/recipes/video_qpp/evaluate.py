"""Measure `video-qpp@2`, as it is served, on the official tests of VQPP and PQPP.

Example:
    python -m recipes.video_qpp.evaluate --data ../shared/data --check
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from assay_models.base import Options, RewardModel, Score
from assay_models.card import Quality, Reference
from assay_models.families.qpp.pre_retrieval import DEFAULT_COLLECTION, SYSTEMS
from assay_models.items import VideoQppItem
from recipes.card_check import as_toml, differences, exit_on, statistics
from recipes.measure import load_model, score_items
from recipes.video_qpp.data import COLUMNS, Queries, read_queries
from recipes.video_qpp.metrics import (
    TEST_NAMES,
    TargetColumn,
    Vector,
    correlation_rows,
    mean_column,
    pair_row,
    root_mean_squared_error,
)
from recipes.video_qpp.sanity import PAIRS

MODEL = "video-qpp@2"
TOLERANCE = 0.002
LABELS = {"rr": "reciprocal rank", "r10": "R@10"}
COCO_LABELS = {"rr": "reciprocal rank", "r10": "precision@10"}


def main() -> None:
    """Measure, print, and with `--check` compare the figures with the card's."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    card, model = load_model(MODEL, arguments.repository)
    print(f"{card.id} {model.fingerprint}")
    rows = [row for name in COLUMNS for row in measure(model, name, arguments.data)]
    reference = reference_statistics(model, arguments.data)
    print_sanity_check(model)
    if arguments.toml:
        print("\n" + "\n".join(as_toml(row) for row in rows))
        print(json.dumps(reference.model_dump(), indent=2))
    if arguments.check:
        found = differences(
            card,
            rows,
            reference=reference,
            tolerance=TOLERANCE,
            reference_tolerance=TOLERANCE,
        )
        exit_on(found)


def measure(model: RewardModel, collection: str, data: Path) -> Iterator[Quality]:
    """Yield every row of one collection's official test, printed as it is computed."""
    train, queries = read_queries(data, collection)
    name = TEST_NAMES[collection]
    print(f"\n{name}: {len(queries)} queries, {queries.leaked.sum()} shared texts")
    columns = predict_columns(model, collection, queries)
    for row in _rows(columns, queries):
        baselines = ", ".join(f"{words.name} {words.value:.3f}" for words in row.baselines[:1])
        interval = f"{row.value:6.3f} [{row.low:.3f}, {row.high:.3f}]"
        print(f"  {row.metric:38}{interval}  n={row.n}  {baselines}  {row.dataset}", flush=True)
        yield row
    for index, column in enumerate(columns[:-1]):
        constant = np.full(len(queries), train.targets[:, index].mean())
        error = root_mean_squared_error(column.predicted, column.true)
        trivial = root_mean_squared_error(constant, column.true)
        print(f"  RMSE, {column.target:32}{error:6.3f}  mean of the training labels {trivial:.3f}")


def predict_columns(model: RewardModel, collection: str, queries: Queries) -> list[TargetColumn]:
    """Return the served predictions for each target of a test, the served score last."""
    columns: list[TargetColumn] = []
    for system in SYSTEMS[collection] or (None,):
        print(f"  scoring {len(queries)} queries, system: {system or 'none named'}", flush=True)
        scores = score_queries(model, queries.texts, collection, system)
        for channel in ("rr", "r10"):
            label = LABELS[channel] if system else COCO_LABELS[channel]
            column = TargetColumn(
                dataset=TEST_NAMES[collection],
                target=f"{system.upper()} {label}" if system else label,
                texts=queries.texts,
                true=queries.targets[:, len(columns)],
                predicted=np.array([score.channels[channel] for score in scores]),
            )
            columns.append(column)
    served = _values(score_queries(model, queries.texts, collection, None))
    return [*columns, mean_column(TEST_NAMES[collection], columns, served)]


def score_queries(
    model: RewardModel, texts: Sequence[str], collection: str, system: str | None
) -> list[Score]:
    """Score queries as the service does."""
    fields = {"collection": collection, "system": system}
    items = [VideoQppItem.model_validate({"query": text, **fields}) for text in texts]
    return score_items(model, items, Options())


def reference_statistics(model: RewardModel, data: Path) -> Reference:
    """Return statistics of the served score on the default collection's test."""
    queries = read_queries(data, DEFAULT_COLLECTION)[1]
    return statistics(score_queries(model, queries.texts, DEFAULT_COLLECTION, None))


def print_sanity_check(model: RewardModel) -> None:
    """Print how often the detailed query of our own pairs scores higher than the general one."""
    for collection in COLUMNS:
        detailed = _values(score_queries(model, [pair[0] for pair in PAIRS], collection, None))
        general = _values(score_queries(model, [pair[1] for pair in PAIRS], collection, None))
        higher = int((detailed > general).sum())
        print(f"\nour own queries, {collection}: in detail higher in {higher} of {len(PAIRS)}")
        for (text, other), high, low in zip(PAIRS, detailed, general, strict=True):
            print(f"  {high:.3f} {text}\n  {low:.3f}   {other}")


def _rows(columns: Sequence[TargetColumn], queries: Queries) -> Iterator[Quality]:
    unshared = np.flatnonzero(~queries.leaked)
    shared = len(queries) - len(unshared)
    for column in columns:
        yield from correlation_rows(column)
    if shared:
        dataset = f"{columns[0].dataset} without the {shared} texts shared with train"
        for column in columns:
            yield from correlation_rows(column.of_rows(unshared, dataset))
    yield pair_row(columns[0])


def _values(scores: Sequence[Score]) -> Vector:
    return np.array([score.score for score in scores])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.video_qpp.evaluate",
        description="Measure video-qpp@2 on the official tests of VQPP and PQPP.",
        epilog="example: python -m recipes.video_qpp.evaluate --data ../shared/data --check",
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds vqpp/")
    parser.add_argument(
        "--repository", type=Path, help="a folder of models whose models replace embedded ones"
    )
    parser.add_argument("--check", action="store_true", help="fail where the card differs")
    parser.add_argument("--toml", action="store_true", help="print the card's rows too")
    parser.add_argument("--threads", type=int, default=1, help="threads of the encoder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
