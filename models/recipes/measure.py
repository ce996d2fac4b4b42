"""Shared parts of the recipes: reading data, offline scoring, estimates with intervals."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from assay_models.base import Input, Item, Options, Prepared, Raw, RewardModel, Score
from assay_models.card import ModelCard
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository, embedded_root

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with its 95 % bootstrap interval and the number of cases behind it."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a gzipped JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def load_model(
    reference: str, repository: Path | None = None, **options: Any
) -> tuple[ModelCard, RewardModel]:
    """Load a model the way the service loads it (CPU, fp32).

    Args:
        reference: `name` or `name@version`.
        repository: a folder of models; its models replace embedded ones of the same id.
        **options: replace the card's own of those names; the card returned has them.
    """
    roots = [embedded_root()] if repository is None else [embedded_root(), repository]
    models = ModelRepository(roots)
    entry = models.find(reference)
    card = entry.card.model_copy(update={"options": {**entry.card.options, **options}})
    return card, family_of(card).load(card, models.locate(entry), Runtime())


def score_items(
    model: RewardModel, items: Sequence[Item], options: Options, batch_size: int = 32
) -> list[Score]:
    """Score items with the model's own prepare, predict and finish; return them in the order given.

    Rows with a shared prefix and rows of similar length are batched together where possible.
    """
    prepared = [model.prepare([item], options) for item in items]
    rows = [row for batch in prepared for row in batch.inputs]
    order = sorted(range(len(rows)), key=lambda at: (rows[at].prefix_key, rows[at].tokens))
    raws: dict[int, Raw] = {}
    starts = range(0, len(order), batch_size)
    for start in track(starts, "scoring", transient=True, console=Console(stderr=True)):
        indices = order[start : start + batch_size]
        raws.update(zip(indices, _predict(model, [rows[at] for at in indices]), strict=True))
    return list(_finish(model, prepared, [raws[at] for at in range(len(rows))], options))


def pair_accuracy(margins: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Estimate:
    """Estimate the share of pairs whose better side scored higher; ties count one half.

    Args:
        margins: score of the better side minus score of the worse, one a pair.
        clusters: the origin of each pair (its problem); whole clusters are resampled, since pairs
            of one problem are not independent.
        seed: of the bootstrap.
    """
    wins = np.where(np.asarray(margins) > 0, 1.0, np.where(np.asarray(margins) == 0, 0.5, 0.0))
    return cluster_bootstrap(lambda rows: float(wins[rows].mean()), clusters, seed)


def cluster_bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], clusters: Sequence[str], seed: int = 0
) -> Estimate:
    """Estimate a statistic of rows with its percentile interval, whole clusters resampled.

    Where all rows come from one cluster, single rows are resampled: the interval then says nothing
    about other clusters.
    """
    if len(set(clusters)) == 1:
        clusters = [str(row) for row in range(len(clusters))]
    names, owner = np.unique(np.asarray(clusters), return_inverse=True)
    members = [np.flatnonzero(owner == index) for index in range(len(names))]
    generator = np.random.default_rng(seed)
    resampled = [
        statistic(
            np.concatenate([members[i] for i in generator.integers(len(names), size=len(names))])
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(resampled, [2.5, 97.5])
    all_rows = np.arange(len(clusters))
    return Estimate(statistic(all_rows), float(low), float(high), len(clusters))


def _predict(model: RewardModel, inputs: Sequence[Input]) -> Sequence[Raw]:
    raws = model.predict(inputs)
    assert isinstance(raws, Sequence), "recipes score device models only"
    return raws


def _finish(
    model: RewardModel, prepared: Sequence[Prepared], raws: Sequence[Raw], options: Options
) -> Iterator[Score]:
    start = 0
    for batch in prepared:
        stop = start + len(batch.inputs)
        yield from model.finish(batch, raws[start:stop], options)
        start = stop
