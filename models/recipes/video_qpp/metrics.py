"""Metrics of the official tests: correlations, pairs of queries, and the trivial baselines."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from assay_models.card import Baseline, Quality
from assay_models.families.qpp.features import read_features
from assay_models.families.qpp.query_text import normalise
from recipes.measure import Estimate, cluster_bootstrap
from recipes.video_qpp.data import Matrix

COMMAND = "python -m recipes.video_qpp.evaluate --data ../shared/data --check"

TEST_NAMES: Mapping[str, str] = {
    "msrvtt": "VQPP MSR-VTT test",
    "vatex": "VQPP VATEX test",
    "coco": "PQPP test",
}

Vector = NDArray[np.float64]
Statistic = Callable[[Vector, Vector], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetColumn:
    """A target on a set of queries: its name, the true and the predicted values."""

    dataset: str
    target: str
    texts: tuple[str, ...]
    true: Vector
    predicted: Vector

    def of_rows(self, rows: NDArray[np.int64], dataset: str) -> "TargetColumn":
        """Return the same target on some of the queries."""
        return TargetColumn(
            dataset=dataset,
            target=self.target,
            texts=tuple(self.texts[row] for row in rows),
            true=self.true[rows],
            predicted=self.predicted[rows],
        )


def correlation_rows(column: TargetColumn, note: str = "") -> Iterator[Quality]:
    """Yield Pearson's r and Kendall's tau-b of one column, with the number of words as baseline."""
    for name, statistic in (("Pearson r", _pearson), ("Kendall tau-b", _kendall)):
        estimate = _with_interval(statistic, column)
        words = Baseline(
            name="words", value=round(statistic(count_words(column.texts), column.true), 3)
        )
        mean = Baseline(name="mean of the labels (a constant)", value=0.0)
        yield _row(column, name, estimate=estimate, baselines=(words, mean), note=note)


def pair_row(column: TargetColumn, note: str = "") -> Quality:
    """Compute how often the better retrieved of two queries scores higher.

    All pairs of queries with different labels count; a tie counts one half. Queries, not pairs, are
    resampled.
    """
    better = column.true[:, None] > column.true[None, :]
    estimate = _pair_accuracy(column.predicted, better, resample=True)
    words = _pair_accuracy(count_words(column.texts), better, resample=False)
    baselines = (
        Baseline(name="words", value=round(words.value, 3)),
        Baseline(name="mean of the labels (a constant)", value=0.5),
    )
    return _row(column, "pair accuracy", estimate=estimate, baselines=baselines, note=note)


def root_mean_squared_error(predicted: Vector, true: Vector) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def count_words(texts: Sequence[str]) -> Vector:
    """Return the number of words of each text."""
    return np.array([read_features(normalise(text)).words for text in texts], dtype=np.float64)


def mean_column(dataset: str, columns: Sequence[TargetColumn], predicted: Vector) -> TargetColumn:
    """Return a column of the served score and the mean of the labels it combines."""
    true: Matrix = np.mean([column.true for column in columns], axis=0)
    return TargetColumn(
        dataset=dataset,
        target="score",
        texts=columns[0].texts,
        true=true,
        predicted=predicted,
    )


def _pearson(predicted: Vector, true: Vector) -> float:
    return float(stats.pearsonr(predicted, true).statistic)


def _kendall(predicted: Vector, true: Vector) -> float:
    return float(stats.kendalltau(predicted, true).statistic)


def _with_interval(statistic: Statistic, column: TargetColumn) -> Estimate:
    each_row = [str(row) for row in range(len(column.texts))]
    return cluster_bootstrap(
        lambda rows: statistic(column.predicted[rows], column.true[rows]), each_row
    )


def _pair_accuracy(predicted: Vector, better: NDArray[np.bool_], *, resample: bool) -> Estimate:
    ahead = np.sign(predicted[:, None] - predicted[None, :])
    won = np.where(better, (1 + ahead) / 2, 0).astype(np.float32)
    counted = better.astype(np.float32)

    def accuracy(rows: NDArray[np.int64]) -> float:
        times = np.bincount(rows, minlength=len(predicted)).astype(np.float32)
        return float((times @ won @ times) / (times @ counted @ times))

    if resample:
        return cluster_bootstrap(accuracy, [str(row) for row in range(len(predicted))])
    value = accuracy(np.arange(len(predicted)))
    return Estimate(value, value, value, len(predicted))


def _row(
    column: TargetColumn,
    metric: str,
    *,
    estimate: Estimate,
    baselines: tuple[Baseline, ...],
    note: str,
) -> Quality:
    return Quality(
        dataset=column.dataset,
        metric=f"{metric}, {column.target}",
        value=round(estimate.value, 3),
        low=round(estimate.low, 3),
        high=round(estimate.high, 3),
        n=estimate.n,
        baselines=baselines,
        note=note,
        command=COMMAND,
    )
