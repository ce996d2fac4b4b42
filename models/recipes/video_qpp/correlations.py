"""Pearson's r and Kendall's tau-b with their p-values and bootstrap intervals, for many predictors.

A resample is a vector of how often each query was drawn. Both coefficients are quotients of forms
in it, so that all resamples are a few matrix products.
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


def draws(queries: int, seed: int = 0, resamples: int = RESAMPLES) -> Counts:
    """How often each query is in each resample: shape (resamples, queries)."""
    generator = np.random.default_rng(seed)
    rows = generator.multinomial(queries, np.full(queries, 1 / queries), size=resamples)
    return rows.astype(np.float32)


def pearson(foretold: Vector, true: Vector, drawn: Counts) -> Coefficient | None:
    """r; None where one side is constant."""
    if foretold.std() == 0 or true.std() == 0:
        return None
    x, y = _standard(foretold), _standard(true)
    moments = drawn.astype(np.float64) @ np.column_stack([x, y, x * x, y * y, x * y]) / len(x)
    mx, my, xx, yy, xy = moments.T
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = (xy - mx * my) / np.sqrt((xx - mx * mx) * (yy - my * my))
    found = stats.pearsonr(foretold, true)
    return _coefficient(float(found.statistic), float(found.pvalue), resampled)


def kendall(foretold: Vector, true: Vector, drawn: Counts) -> Coefficient | None:
    """tau-b; None where one side is constant."""
    if foretold.std() == 0 or true.std() == 0:
        return None
    concordance = drawn @ (_signs(foretold) * _signs(true))
    agreeing = np.einsum("ri,ri->r", concordance, drawn, dtype=np.float64)
    untied_x, untied_y = _untied(foretold, drawn), _untied(true, drawn)
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = agreeing / np.sqrt(untied_x * untied_y)
    found = stats.kendalltau(foretold, true)
    return _coefficient(float(found.statistic), float(found.pvalue), resampled)


def _coefficient(value: float, p: float, resampled: Vector) -> Coefficient:
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Coefficient(value, p, float(low), float(high))


def _standard(values: Vector) -> Vector:
    found: Vector = (values - values.mean()) / values.std()
    return found


def _signs(values: Vector) -> Counts:
    return np.sign(values[:, None] - values[None, :]).astype(np.float32)


def _untied(values: Vector, drawn: Counts) -> Vector:
    """In each resample the ordered pairs whose values differ, of all that were drawn."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    tied = np.add.reduceat(drawn[:, order].astype(np.float64), starts, axis=1)
    pairs: Vector = tied.sum(axis=1) ** 2 - (tied**2).sum(axis=1)
    return pairs
