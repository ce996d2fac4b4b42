"""Pearson's r and Kendall's tau-b with their p-values and bootstrap intervals, for many predictors.

A resample is a vector of the number of times each query was drawn. Both coefficients are quotients
of forms in it, so that all resamples are a few matrix products.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Vector = NDArray[np.float64]
Counts = NDArray[np.float32]

RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A correlation, its two-sided p-value by SciPy, and its 95 % percentile interval."""

    value: float
    p: float
    low: float
    high: float


def draw_resamples(queries: int, seed: int = 0, resamples: int = RESAMPLES) -> Counts:
    """Return the number of times each query is in each resample: shape (resamples, queries)."""
    generator = np.random.default_rng(seed)
    rows = generator.multinomial(queries, np.full(queries, 1 / queries), size=resamples)
    return rows.astype(np.float32)


def pearson(predicted: Vector, true: Vector, counts: Counts) -> Coefficient | None:
    """Return r; None where one side is constant."""
    if predicted.std() == 0 or true.std() == 0:
        return None
    x, y = _standardise(predicted), _standardise(true)
    moments = counts.astype(np.float64) @ np.column_stack([x, y, x * x, y * y, x * y]) / len(x)
    mx, my, xx, yy, xy = moments.T
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = (xy - mx * my) / np.sqrt((xx - mx * mx) * (yy - my * my))
    found = stats.pearsonr(predicted, true)
    return _coefficient(float(found.statistic), float(found.pvalue), resampled)


def kendall(predicted: Vector, true: Vector, counts: Counts) -> Coefficient | None:
    """Return tau-b; None where one side is constant."""
    if predicted.std() == 0 or true.std() == 0:
        return None
    concordance = counts @ (_signs(predicted) * _signs(true))
    agreeing = np.einsum("ri,ri->r", concordance, counts, dtype=np.float64)
    untied_x, untied_y = _untied_pairs(predicted, counts), _untied_pairs(true, counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = agreeing / np.sqrt(untied_x * untied_y)
    found = stats.kendalltau(predicted, true)
    return _coefficient(float(found.statistic), float(found.pvalue), resampled)


def _coefficient(value: float, p: float, resampled: Vector) -> Coefficient:
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Coefficient(value, p, float(low), float(high))


def _standardise(values: Vector) -> Vector:
    standardised: Vector = (values - values.mean()) / values.std()
    return standardised


def _signs(values: Vector) -> Counts:
    return np.sign(values[:, None] - values[None, :]).astype(np.float32)


def _untied_pairs(values: Vector, counts: Counts) -> Vector:
    """Count, in each resample, the ordered pairs whose values differ."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    tied = np.add.reduceat(counts[:, order].astype(np.float64), starts, axis=1)
    pairs: Vector = tied.sum(axis=1) ** 2 - (tied**2).sum(axis=1)
    return pairs
