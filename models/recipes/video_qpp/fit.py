"""Two ridge regressions on one query, their penalties, and how they are blended.

All is chosen by cross-validation on queries whose labels are known; the official tests have no
part in it. The shuffled folds hold whole clusters of alike queries: captions of one video give
each other's labels away, and a new query has no such caption among the training ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from assay_models.families.query_features import BINS, normalise, read_features
from assay_models.families.video_qpp import Head
from recipes.video_qpp.data import Matrix

SEED = 20
FOLDS = 5
QUERIES_PER_CLUSTER = 15
DENSE_PENALTIES = (30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0)
NGRAM_PENALTIES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
CLIPPED = (0.1, 99.9)
"""Percentiles of the training queries beyond which a word feature says no more."""

Folds = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class Design:
    """The inputs of both regressions for the same queries, and what made them so.

    Shapes for n queries: `dense` (n, width + 5) with columns of mean 0 and deviation 1, `ngrams`
    (n, bins) with rows of length 1.
    """

    dense: Matrix
    ngrams: sparse.csr_matrix
    mean: Matrix
    deviation: Matrix
    low: Matrix
    high: Matrix
    idf: Matrix


@dataclass(frozen=True, slots=True)
class Choice:
    """The penalties with the least cross-validated squared error, and for each target the share of
    either regression and a constant: `shares` (targets, 3)."""

    dense_penalty: float
    ngram_penalty: float
    shares: Matrix


@dataclass(frozen=True, slots=True)
class Tried:
    """One row of the cross-validation table: what was fitted, with which penalty, and predictions
    made for each query by the folds that had not seen it (n, targets)."""

    name: str
    penalty: float
    predictions: Matrix

    def error(self, targets: Matrix) -> float:
        """Mean squared error over queries and targets."""
        return float(((self.predictions - targets) ** 2).mean())

    def correlations(self, targets: Matrix) -> list[float]:
        """Pearson's r of each target."""
        pairs = zip(self.predictions.T, targets.T, strict=True)
        return [float(np.corrcoef(predicted, true)[0, 1]) for predicted, true in pairs]


def make_design(texts: Sequence[str], embeddings: NDArray[np.float32]) -> Design:
    """The design of the training queries.

    The inverse document frequency is ln((1 + n) / (1 + df)) + 1, rounded to fp16 as it is stored.
    """
    numbers, counts = _features(texts)
    low, high = np.percentile(numbers, CLIPPED, axis=0)
    dense = np.hstack([embeddings.astype(np.float64), np.clip(numbers, low, high)])
    mean, deviation = dense.mean(axis=0), dense.std(axis=0)
    frequency = np.asarray((counts > 0).sum(axis=0)).ravel()
    idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
    idf = idf.astype(np.float16).astype(np.float64)
    return Design((dense - mean) / deviation, _weigh(counts, idf), mean, deviation, low, high, idf)


def make_folds(embeddings: NDArray[np.float32]) -> Folds:
    """Shuffled folds of whole clusters of alike queries."""
    clusters = MiniBatchKMeans(
        len(embeddings) // QUERIES_PER_CLUSTER,
        random_state=SEED,
        batch_size=4096,
        n_init=1,
        max_iter=30,
    ).fit_predict(embeddings)
    splitter = GroupKFold(FOLDS, shuffle=True, random_state=SEED)
    return list(splitter.split(embeddings, groups=clusters))


def choose(
    design: Design, targets: Matrix, folds: Folds, report: Callable[[Tried], None]
) -> Choice:
    """Penalties and shares by cross-validated squared error; each candidate goes to `report`."""
    dense: list[Tried] = []
    ngrams: list[Tried] = []
    for penalty in DENSE_PENALTIES:
        predictions = _held_out(design.dense, targets, folds, Ridge(penalty))
        dense.append(Tried("dense", penalty, predictions))
        report(dense[-1])
    for penalty in NGRAM_PENALTIES:
        predictions = _held_out(design.ngrams, targets, folds, _sparse_ridge(penalty))
        ngrams.append(Tried("n-grams", penalty, predictions))
        report(ngrams[-1])
    options = [(left, right) for left in dense for right in ngrams]
    left, right = min(options, key=lambda pair: _blend(pair[0], pair[1], targets)[0].error(targets))
    blended, shares = _blend(left, right, targets)
    report(blended)
    return Choice(left.penalty, right.penalty, shares)


def fit_head(design: Design, targets: Matrix, choice: Choice) -> Head:
    """Both regressions on all training queries, folded into one linear model."""
    dense = Ridge(choice.dense_penalty).fit(design.dense, targets)
    ngrams = _sparse_ridge(choice.ngram_penalty).fit(design.ngrams, targets)
    share_dense, share_ngrams, constant = choice.shares.T
    slopes = (dense.coef_ / design.deviation).T * share_dense
    intercept = constant + share_dense * dense.intercept_ + share_ngrams * ngrams.intercept_
    return Head(
        intercept=intercept - design.mean @ slopes,
        embedding=slopes[: -len(design.low)],
        features=slopes[-len(design.low) :],
        low=design.low,
        high=design.high,
        idf=design.idf,
        ngrams=ngrams.coef_.T * share_ngrams,
    )


def _features(texts: Sequence[str]) -> tuple[Matrix, sparse.csr_matrix]:
    read = [read_features(normalise(text)) for text in texts]
    starts = np.cumsum([0, *(len(one.bins) for one in read)])
    bins = np.concatenate([one.bins for one in read])
    counts = np.concatenate([one.counts for one in read]).astype(np.float64)
    shape = (len(read), BINS)
    numbers = np.array([one.numbers for one in read])
    return numbers, sparse.csr_matrix((counts, bins, starts), shape=shape)


def _weigh(counts: sparse.csr_matrix, idf: Matrix) -> sparse.csr_matrix:
    weighed = counts.copy()
    weighed.data = (1 + np.log(weighed.data)) * idf[weighed.indices]
    lengths = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
    lengths[lengths == 0] = 1
    return sparse.csr_matrix(sparse.diags(1 / lengths) @ weighed)


def _sparse_ridge(penalty: float) -> Ridge:
    return Ridge(penalty, solver="sparse_cg", tol=1e-6)


def _held_out(
    rows: Matrix | sparse.csr_matrix, targets: Matrix, folds: Folds, to_fit: Ridge
) -> Matrix:
    predictions = np.zeros_like(targets)
    for learnt, held_out in folds:
        fitted = to_fit.fit(rows[learnt], targets[learnt])
        predictions[held_out] = fitted.predict(rows[held_out])
    return predictions


def _blend(dense: Tried, ngrams: Tried, targets: Matrix) -> tuple[Tried, Matrix]:
    columns, shares = [], []
    for left, right, true in zip(dense.predictions.T, ngrams.predictions.T, targets.T, strict=True):
        both = np.column_stack([left, right, np.ones_like(left)])
        share = np.linalg.lstsq(both, true, rcond=None)[0]
        columns.append(both @ share)
        shares.append(share)
    return Tried("blend", 0.0, np.column_stack(columns)), np.array(shares)
