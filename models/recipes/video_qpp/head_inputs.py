"""Inputs of a head's net, for the queries it is trained on and for those it is tested on.

A query must have no access to itself while the net is trained on it, nor to another caption of its
own video. So its neighbours are searched outside its own cluster, and its n-grams are read by a
ridge regression that was fitted without it.
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

from assay_models.families.qpp.features import BINS, read_features
from assay_models.families.qpp.heads import Neighbourhood, neighbour_features
from assay_models.families.qpp.query_text import normalise
from recipes.video_qpp.data import Matrix

SEED = 20
FOLDS = 5
COMPONENTS = 128
CLIP_PERCENTILES = (0.1, 99.9)
"""Percentiles of the training queries to which a word feature is clipped."""

CHUNK_ROWS = 1024
"""Queries whose cosines are held at once."""

Rows = NDArray[np.int64]
Folds = Sequence[tuple[Rows, Rows]]
"""Rows to fit on and rows to predict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledQueries:
    """Queries and their targets.

    Shapes for n queries: `embeddings` (n, width), `word_features` (n, 5), `counts` of n-grams
    (n, bins), `targets` (n, k), `clusters` (n,): similar queries have the same.
    """

    embeddings: NDArray[np.float32]
    word_features: Matrix
    counts: sparse.csr_matrix
    targets: Matrix
    clusters: Rows

    def of_rows(self, rows: Rows) -> "LabelledQueries":
        """Return some of the queries."""
        return LabelledQueries(
            embeddings=self.embeddings[rows],
            word_features=self.word_features[rows],
            counts=self.counts[rows],
            targets=self.targets[rows],
            clusters=self.clusters[rows],
        )

    def folds(self, seed: int = SEED) -> Folds:
        """Return shuffled folds of whole clusters."""
        splitter = GroupKFold(FOLDS, shuffle=True, random_state=seed)
        return list(splitter.split(self.embeddings, groups=self.clusters))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadBasis:
    """All of a head but its net, fitted on some queries and rounded as it is stored."""

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
        """The training queries, as they are served."""
        queries = torch.from_numpy(self.queries.astype(np.float32))
        labels = torch.from_numpy(self.labels.astype(np.float32))
        unit = nn.functional.normalize(queries, dim=1)
        return Neighbourhood(torch.from_numpy(self.projection), unit, labels)

    def inputs(self, queries: LabelledQueries) -> Matrix:
        """Return the net's inputs for queries that the basis was not fitted on: (n, columns)."""
        neighbours = _neighbour_features(self.neighbourhood, queries.embeddings, None)
        grams = tf_idf(queries.counts, self.idf) @ self.ngrams + self.ngrams_constant
        return _join(self, queries, neighbours, grams)


def read_text_features(texts: Sequence[str]) -> tuple[Matrix, sparse.csr_matrix]:
    """Return the word features of texts (n, 5) and the counts of their n-grams (n, bins)."""
    features = [read_features(normalise(text)) for text in texts]
    starts = np.cumsum([0, *(len(row.bins) for row in features)])
    bins = np.concatenate([row.bins for row in features])
    counts = np.concatenate([row.counts for row in features]).astype(np.float64)
    word_features = np.array([row.numbers for row in features])
    return word_features, sparse.csr_matrix((counts, bins, starts), shape=(len(features), BINS))


def tf_idf(counts: sparse.csr_matrix, idf: Matrix) -> sparse.csr_matrix:
    """Return rows of (1 + ln count) idf, of length 1."""
    weighted = counts.copy()
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices]
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    lengths[lengths == 0] = 1
    return sparse.csr_matrix(sparse.diags(1 / lengths) @ weighted)


def inverse_document_frequency(counts: sparse.csr_matrix) -> Matrix:
    """Return ln((1 + n) / (1 + df)) + 1 of each bin, rounded to fp16 as it is stored."""
    frequency = np.asarray((counts > 0).sum(axis=0)).ravel()
    idf = np.log((1 + counts.shape[0]) / (1 + frequency)) + 1
    rounded: Matrix = idf.astype(np.float16).astype(np.float64)
    return rounded


def ngram_ridge(penalty: float) -> Ridge:
    """Return the unfitted regression on n-grams."""
    return Ridge(penalty, solver="sparse_cg", tol=1e-6)


def out_of_fold_predictions(
    fit: Callable[[Rows], Callable[[Rows], Matrix]],
    folds: Folds,
    shape: tuple[int, ...],
) -> Matrix:
    """Predict every row by the model fitted on the folds that do not contain it."""
    predictions = np.zeros(shape)
    for train, unseen in folds:
        predictions[unseen] = fit(train)(unseen)
    return predictions


def ngram_predictions(known: LabelledQueries, penalty: float, seed: int = SEED) -> Matrix:
    """Predict each query from its n-grams alone, out of fold: (n, k)."""
    rows = tf_idf(known.counts, inverse_document_frequency(known.counts))

    def fit(train: Rows) -> Callable[[Rows], Matrix]:
        fitted = ngram_ridge(penalty).fit(rows[train], known.targets[train])
        return lambda unseen: np.asarray(fitted.predict(rows[unseen]))

    return out_of_fold_predictions(fit, known.folds(seed), known.targets.shape)


def fit_basis(known: LabelledQueries, penalty: float) -> HeadBasis:
    """Fit the basis on these queries; `penalty` is that of the regression on n-grams."""
    low, high = np.percentile(known.word_features, CLIP_PERCENTILES, axis=0)
    idf = inverse_document_frequency(known.counts)
    grams = ngram_ridge(penalty).fit(tf_idf(known.counts, idf), known.targets)
    projection = _principal_components(known.embeddings)
    projected = known.embeddings @ projection
    scaled = 127 * projected / np.abs(projected).max(axis=1, keepdims=True)
    return HeadBasis(
        low=low,
        high=high,
        idf=idf,
        ngrams=grams.coef_.T.astype(np.float16).astype(np.float64),
        ngrams_constant=grams.intercept_,
        projection=projection,
        queries=scaled.round().astype(np.int8),
        labels=(known.targets - known.targets.mean(axis=0)).astype(np.float16),
    )


def training_inputs(basis: HeadBasis, known: LabelledQueries, penalty: float) -> Matrix:
    """Return the net's inputs for the queries that the basis was fitted on: (n, columns)."""
    neighbours = _neighbour_features(basis.neighbourhood, known.embeddings, known.clusters)
    return _join(basis, known, neighbours, ngram_predictions(known, penalty, seed=1))


def _principal_components(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    largest = vectors[:, np.argsort(values)[::-1][:COMPONENTS]]
    return np.ascontiguousarray(largest, dtype=np.float32)


def _neighbour_features(
    neighbourhood: Neighbourhood, embeddings: NDArray[np.float32], clusters: Rows | None
) -> Matrix:
    """Return features of queries' neighbours; with `clusters`, outside their own cluster."""
    parts = []
    for start in range(0, len(embeddings), CHUNK_ROWS):
        cosines = neighbourhood.cosines(torch.from_numpy(embeddings[start : start + CHUNK_ROWS]))
        if clusters is not None:
            cosines[_in_same_cluster(clusters[start : start + CHUNK_ROWS], clusters)] = -1.0
        parts.append(neighbour_features(cosines, neighbourhood.labels).numpy())
    return np.concatenate(parts)


def _in_same_cluster(some: Rows, clusters: Rows) -> Tensor:
    return torch.from_numpy(some[:, None] == clusters[None, :])


def _join(basis: HeadBasis, queries: LabelledQueries, neighbours: Matrix, grams: Matrix) -> Matrix:
    word_features = np.clip(queries.word_features, basis.low, basis.high)
    return np.hstack([queries.embeddings.astype(np.float64), word_features, neighbours, grams])
