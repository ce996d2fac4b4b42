"""Figures of the official tests: correlations, pairs of queries, and the trivial baselines."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from assay_models.card import Baseline, Quality
from assay_models.families.qpp.features import normalise, read_features
from recipes.measure import Figure, cluster_bootstrap
from recipes.video_qpp.data import Matrix

COMMAND = "python -m recipes.video_qpp.evaluate --data ../shared/data --check"

NAMES: Mapping[str, str] = {
    "msrvtt": "VQPP MSR-VTT test",
    "vatex": "VQPP VATEX test",
    "coco": "PQPP test",
}

Vector = NDArray[np.float64]
Statistic = Callable[[Vector, Vector], float]


@dataclass(frozen=True, slots=True)
class Column:
    """One target on one set of queries: what was measured, what is true, what was foretold."""

    dataset: str
    target: str
    texts: tuple[str, ...]
    true: Vector
    foretold: Vector

    def only(self, rows: NDArray[np.int64], dataset: str) -> "Column":
        """The same target on some of the queries."""
        texts = tuple(self.texts[row] for row in rows)
        return Column(dataset, self.target, texts, self.true[rows], self.foretold[rows])


def correlation_rows(column: Column, note: str = "") -> Iterator[Quality]:
    """Pearson's r and Kendall's tau-b of one column, with the number of words as baseline."""
    for name, statistic in (("Pearson r", _pearson), ("Kendall tau-b", _kendall)):
        figure = _with_interval(statistic, column)
        words = Baseline(
            name="words", value=round(statistic(words_of(column.texts), column.true), 3)
        )
        mean = Baseline(name="mean of the labels (a constant)", value=0.0)
        yield _row(column.dataset, f"{name}, {column.target}", figure, (words, mean), note)


def pair_row(column: Column, note: str = "") -> Quality:
    """How often the better retrieved of two queries scores higher, over all pairs of queries with
    different labels; a tie counts one half. Queries, not pairs, are resampled."""
    better = column.true[:, None] > column.true[None, :]
    figure = _pair_accuracy(column.foretold, better, resampled=True)
    words = _pair_accuracy(words_of(column.texts), better, resampled=False)
    baselines = (
        Baseline(name="words", value=round(words.value, 3)),
        Baseline(name="mean of the labels (a constant)", value=0.5),
    )
    return _row(column.dataset, f"pair accuracy, {column.target}", figure, baselines, note)


def root_mean_square(foretold: Vector, true: Vector) -> float:
    """The root of the mean squared error."""
    return float(np.sqrt(np.mean((foretold - true) ** 2)))


def words_of(texts: Sequence[str]) -> Vector:
    """The number of words of each text."""
    return np.array([read_features(normalise(text)).words for text in texts], dtype=np.float64)


def mean_column(dataset: str, columns: Sequence[Column], foretold: Vector) -> Column:
    """The served score against the mean of the labels it mixes."""
    true: Matrix = np.mean([column.true for column in columns], axis=0)
    return Column(dataset, "score", columns[0].texts, true, foretold)


def _pearson(foretold: Vector, true: Vector) -> float:
    return float(stats.pearsonr(foretold, true).statistic)


def _kendall(foretold: Vector, true: Vector) -> float:
    return float(stats.kendalltau(foretold, true).statistic)


def _with_interval(statistic: Statistic, column: Column) -> Figure:
    each = [str(row) for row in range(len(column.texts))]
    return cluster_bootstrap(lambda rows: statistic(column.foretold[rows], column.true[rows]), each)


def _pair_accuracy(foretold: Vector, better: NDArray[np.bool_], resampled: bool) -> Figure:
    ahead = np.sign(foretold[:, None] - foretold[None, :])
    won = np.where(better, (1 + ahead) / 2, 0).astype(np.float32)
    counted = better.astype(np.float32)

    def accuracy(rows: NDArray[np.int64]) -> float:
        times = np.bincount(rows, minlength=len(foretold)).astype(np.float32)
        return float((times @ won @ times) / (times @ counted @ times))

    if resampled:
        return cluster_bootstrap(accuracy, [str(row) for row in range(len(foretold))])
    value = accuracy(np.arange(len(foretold)))
    return Figure(value, value, value, len(foretold))


def _row(
    dataset: str, metric: str, figure: Figure, baselines: tuple[Baseline, ...], note: str
) -> Quality:
    return Quality(
        dataset=dataset,
        metric=metric,
        value=round(figure.value, 3),
        low=round(figure.low, 3),
        high=round(figure.high, 3),
        n=figure.n,
        baselines=baselines,
        note=note,
        command=COMMAND,
    )
