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
from recipes.card_check import as_toml, differences, refuse, statistics
from recipes.measure import load_embedded, score_items
from recipes.video_qpp.data import COLUMNS, Queries, read_queries
from recipes.video_qpp.figures import (
    NAMES,
    Column,
    Vector,
    correlation_rows,
    mean_column,
    pair_row,
    root_mean_square,
)
from recipes.video_qpp.sanity import PAIRS

MODEL = "video-qpp@2"
TOLERANCE = 0.002
LABELS = {"rr": "reciprocal rank", "r10": "R@10"}
COCO_LABELS = {"rr": "reciprocal rank", "r10": "precision@10"}


def main() -> None:
    """Measure, print, and with `--check` hold the figures against the card's."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    card, model = load_embedded(MODEL)
    print(f"{card.id} {model.fingerprint}")
    rows = [row for name in COLUMNS for row in measure(model, name, arguments.data)]
    reference = reference_of(model, arguments.data)
    print_sanity(model)
    if arguments.toml:
        print("\n" + "\n".join(as_toml(row) for row in rows))
        print(json.dumps(reference.model_dump(), indent=2))
    if arguments.check:
        refuse(differences(card, rows, reference, TOLERANCE, TOLERANCE))


def measure(model: RewardModel, collection: str, data: Path) -> Iterator[Quality]:
    """Every figure of one collection's official test, printed as it comes."""
    learnt, queries = read_queries(data, collection)
    print(f"\n{NAMES[collection]}: {len(queries)} queries, {queries.leaked.sum()} shared texts")
    columns = read_columns(model, collection, queries)
    for row in _rows(columns, queries):
        baselines = ", ".join(f"{one.name} {one.value:.3f}" for one in row.baselines[:1])
        interval = f"{row.value:6.3f} [{row.low:.3f}, {row.high:.3f}]"
        print(f"  {row.metric:38}{interval}  n={row.n}  {baselines}  {row.dataset}", flush=True)
        yield row
    for place, column in enumerate(columns[:-1]):
        constant = np.full(len(queries), learnt.targets[:, place].mean())
        error, trivial = (root_mean_square(one, column.true) for one in (column.foretold, constant))
        print(f"  RMSE, {column.target:32}{error:6.3f}  mean of the training labels {trivial:.3f}")


def read_columns(model: RewardModel, collection: str, queries: Queries) -> list[Column]:
    """What the model serves for each target of a test, the served score last."""
    columns: list[Column] = []
    for system in SYSTEMS[collection] or (None,):
        print(f"  scoring {len(queries)} queries, system: {system or 'none named'}", flush=True)
        scores = serve(model, queries.texts, collection, system)
        for channel in ("rr", "r10"):
            label = LABELS[channel] if system else COCO_LABELS[channel]
            target = f"{system.upper()} {label}" if system else label
            foretold = np.array([score.channels[channel] for score in scores])
            true = queries.targets[:, len(columns)]
            columns.append(Column(NAMES[collection], target, queries.texts, true, foretold))
    served = _values(serve(model, queries.texts, collection, None))
    return [*columns, mean_column(NAMES[collection], columns, served)]


def serve(
    model: RewardModel, texts: Sequence[str], collection: str, system: str | None
) -> list[Score]:
    """Scores by the way the service goes."""
    fields = {"collection": collection, "system": system}
    items = [VideoQppItem.model_validate({"query": text, **fields}) for text in texts]
    return score_items(model, items, Options())


def reference_of(model: RewardModel, data: Path) -> Reference:
    """Statistics of the served score on the default collection's test."""
    queries = read_queries(data, DEFAULT_COLLECTION)[1]
    return statistics(serve(model, queries.texts, DEFAULT_COLLECTION, None))


def print_sanity(model: RewardModel) -> None:
    """Our own pairs: is the detailed query foretold to do better than the general one?"""
    for collection in COLUMNS:
        detailed = _values(serve(model, [pair[0] for pair in PAIRS], collection, None))
        general = _values(serve(model, [pair[1] for pair in PAIRS], collection, None))
        higher = int((detailed > general).sum())
        print(f"\nour own queries, {collection}: in detail higher in {higher} of {len(PAIRS)}")
        for (text, other), high, low in zip(PAIRS, detailed, general, strict=True):
            print(f"  {high:.3f} {text}\n  {low:.3f}   {other}")


def _rows(columns: Sequence[Column], queries: Queries) -> Iterator[Quality]:
    alone = np.flatnonzero(~queries.leaked)
    shared = len(queries) - len(alone)
    for column in columns:
        yield from correlation_rows(column)
    if shared:
        dataset = f"{columns[0].dataset} without the {shared} texts shared with train"
        for column in columns:
            yield from correlation_rows(column.only(alone, dataset))
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
    parser.add_argument("--check", action="store_true", help="fail where the card differs")
    parser.add_argument("--toml", action="store_true", help="print the card's rows too")
    parser.add_argument("--threads", type=int, default=1, help="threads of the encoder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
