"""What the net of a head reads of the queries it learns from, and of those it is held against.

A query must not meet itself while it is learnt from, nor another caption of its own video. So its
neighbours are looked for outside its own cluster, and its n-grams are read by a ridge regression
that has not seen it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from assay_models.families.qpp.features import BINS, normalise, read_features
from assay_models.families.qpp.heads import Neighbourhood, surroundings
from recipes.video_qpp.data import Matrix

SEED = 20
FOLDS = 5
COMPONENTS = 128
CLIPPED = (0.1, 99.9)
"""Percentiles of the training queries beyond which a word feature says no more."""

ROWS = 1024
"""Queries whose cosines are held at once."""

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Known:
    """Queries and their labels. Shapes for n queries: `embeddings` (n, width), `numbers` (n, 5),
    `counts` of n-grams (n, bins), `targets` (n, k), `clusters` (n,): alike queries have the same.
    """

    embeddings: NDArray[np.float32]
    numbers: Matrix
    counts: sparse.csr_matrix
    targets: Matrix
    clusters: Rows

    def only(self, rows: Rows) -> "Known":
        """Some of them."""
        return Known(
            self.embeddings[rows],
            self.numbers[rows],
            self.counts[rows],
            self.targets[rows],
            self.clusters[rows],
        )

    def folds(self, seed: int = SEED) -> list[tuple[Rows, Rows]]:
        """Shuffled folds of whole clusters."""
        splitter = GroupKFold(FOLDS, shuffle=True, random_state=seed)
        return list(splitter.split(self.embeddings, groups=self.clusters))


@dataclass(frozen=True, slots=True)
class Basis:
    """All of a head but its net, learnt from some queries and rounded as it is stored."""

    low: Matrix
    high: Matrix
    idf: Matrix
    ngrams: Matrix
    ngrams_constant: Matrix
    projection: NDArray[np.float32]
    queries: NDArray[np.int8]
    labels: NDArray[np.float16]

    @property
    def neighbourhood(self) -> Neighbourhood:
        """As it is served."""
        queries = torch.from_numpy(self.queries.astype(np.float32))
        labels = torch.from_numpy(self.labels.astype(np.float32))
        unit = nn.functional.normalize(queries, dim=1)
        return Neighbourhood(torch.from_numpy(self.projection), unit, labels)

    def inputs(self, queries: Known) -> Matrix:
        """What the net reads of queries that had no part in the basis: (n, columns)."""
        around = _around(self.neighbourhood, queries.embeddings, None)
        grams = weigh(queries.counts, self.idf) @ self.ngrams + self.ngrams_constant
        return _joined(self, queries, around, grams)


def read(texts: Sequence[str]) -> tuple[Matrix, sparse.csr_matrix]:
    """The word features of texts (n, 5) and the counts of their n-grams (n, bins)."""
    found = [read_features(normalise(text)) for text in texts]
    starts = np.cumsum([0, *(len(one.bins) for one in found)])
    bins = np.concatenate([one.bins for one in found])
    counts = np.concatenate([one.counts for one in found]).astype(np.float64)
    numbers = np.array([one.numbers for one in found])
    return numbers, sparse.csr_matrix((counts, bins, starts), shape=(len(found), BINS))


def weigh(counts: sparse.csr_matrix, idf: Matrix) -> sparse.csr_matrix:
    """Rows of (1 + ln count) idf, of length 1."""
    weighed = counts.copy()
    weighed.data = (1 + np.log(weighed.data)) * idf[weighed.indices]
    lengths = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
    lengths[lengths == 0] = 1
    return sparse.csr_matrix(sparse.diags(1 / lengths) @ weighed)


def inverse_frequency(counts: sparse.csr_matrix) -> Matrix:
    """ln((1 + n) / (1 + df)) + 1 of each bin, rounded to fp16 as it is stored."""
    frequency = np.asarray((counts > 0).sum(axis=0)).ravel()
    idf = np.log((1 + counts.shape[0]) / (1 + frequency)) + 1
    rounded: Matrix = idf.astype(np.float16).astype(np.float64)
    return rounded


def ngram_ridge(penalty: float) -> Ridge:
    """The regression on n-grams."""
    return Ridge(penalty, solver="sparse_cg", tol=1e-6)


def held_out(
    fit: Callable[[Rows], Callable[[Rows], Matrix]],
    folds: Sequence[tuple[Rows, Rows]],
    shape: tuple[int, ...],
) -> Matrix:
    """Predictions for every row by what was fitted on the folds that do not hold it."""
    predictions = np.zeros(shape)
    for learnt, unseen in folds:
        predictions[unseen] = fit(learnt)(unseen)
    return predictions


def by_ngrams(known: Known, penalty: float, seed: int = SEED) -> Matrix:
    """What n-grams alone say of each query, by folds that had not seen it (n, k)."""
    rows = weigh(known.counts, inverse_frequency(known.counts))

    def fit(learnt: Rows) -> Callable[[Rows], Matrix]:
        fitted = ngram_ridge(penalty).fit(rows[learnt], known.targets[learnt])
        return lambda unseen: np.asarray(fitted.predict(rows[unseen]))

    return held_out(fit, known.folds(seed), known.targets.shape)


def make_basis(known: Known, penalty: float) -> Basis:
    """The basis that these queries give; `penalty` is that of the regression on n-grams."""
    low, high = np.percentile(known.numbers, CLIPPED, axis=0)
    idf = inverse_frequency(known.counts)
    grams = ngram_ridge(penalty).fit(weigh(known.counts, idf), known.targets)
    projection = _components(known.embeddings)
    projected = known.embeddings @ projection
    scaled = 127 * projected / np.abs(projected).max(axis=1, keepdims=True)
    return Basis(
        low=low,
        high=high,
        idf=idf,
        ngrams=grams.coef_.T.astype(np.float16).astype(np.float64),
        ngrams_constant=grams.intercept_,
        projection=projection,
        queries=scaled.round().astype(np.int8),
        labels=(known.targets - known.targets.mean(axis=0)).astype(np.float16),
    )


def learning_inputs(basis: Basis, known: Known, penalty: float) -> Matrix:
    """What the net reads of the very queries that the basis is of: (n, columns)."""
    around = _around(basis.neighbourhood, known.embeddings, known.clusters)
    return _joined(basis, known, around, by_ngrams(known, penalty, seed=1))


def _components(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    largest = vectors[:, np.argsort(values)[::-1][:COMPONENTS]]
    return np.ascontiguousarray(largest, dtype=np.float32)


def _around(
    neighbourhood: Neighbourhood, embeddings: NDArray[np.float32], clusters: Rows | None
) -> Matrix:
    parts = []
    for start in range(0, len(embeddings), ROWS):
        cosines = neighbourhood.cosines(torch.from_numpy(embeddings[start : start + ROWS]))
        if clusters is not None:
            cosines[_same(clusters[start : start + ROWS], clusters)] = -1.0
        parts.append(surroundings(cosines, neighbourhood.labels).numpy())
    return np.concatenate(parts)


def _same(some: Rows, clusters: Rows) -> Tensor:
    return torch.from_numpy(some[:, None] == clusters[None, :])


def _joined(basis: Basis, queries: Known, around: Matrix, grams: Matrix) -> Matrix:
    numbers = np.clip(queries.numbers, basis.low, basis.high)
    return np.hstack([queries.embeddings.astype(np.float64), numbers, around, grams])
