"""The head of one collection, and how well it does on queries that it has not seen.

All is chosen by cross-validation on queries whose labels are known; the official tests have no
part in it. The shuffled folds hold whole clusters of alike queries: captions of one video give
each other's labels away, and a new query has no such caption among the training ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from assay_models.families.qpp.heads import Net
from recipes.video_qpp.data import Matrix
from recipes.video_qpp.design import (
    SEED,
    Basis,
    Known,
    by_ngrams,
    learning_inputs,
    make_basis,
    read,
)
from recipes.video_qpp.nets import Shape, fit_nets, mixed, outputs

QUERIES_PER_CLUSTER = 15
NGRAM_PENALTIES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
OUTSIDE = 0.1
"""Percentile of the training queries' own nearness below which a query is out of domain."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One row of the cross-validation table: what was fitted, and predictions made for each query
    by the folds that had not seen it (n, targets)."""

    name: str
    predictions: Matrix

    def error(self, targets: Matrix) -> float:
        """Mean squared error over queries and targets."""
        return float(((self.predictions - targets) ** 2).mean())

    def correlations(self, targets: Matrix) -> list[float]:
        """Pearson's r of each target."""
        pairs = zip(self.predictions.T, targets.T, strict=True)
        return [float(np.corrcoef(predicted, true)[0, 1]) for predicted, true in pairs]


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What came of some queries, and the inputs (n, columns) that the nets learnt from."""

    basis: Basis
    inputs: Matrix
    nets: Sequence[Net]


Report = Callable[[Tried], None]


def know(texts: Sequence[str], embeddings: NDArray[np.float32], targets: Matrix) -> Known:
    """The queries to learn from, in clusters of about 15 alike ones."""
    numbers, counts = read(texts)
    clusters = MiniBatchKMeans(
        len(embeddings) // QUERIES_PER_CLUSTER,
        random_state=SEED,
        batch_size=4096,
        n_init=1,
        max_iter=30,
    ).fit_predict(embeddings)
    return Known(embeddings, numbers, counts, targets, clusters.astype(np.int64))


def choose_penalty(known: Known, report: Report) -> float:
    """The penalty of the regression on n-grams with the least cross-validated squared error."""
    tried = {
        penalty: Tried(f"n-grams {penalty:g}", by_ngrams(known, penalty))
        for penalty in NGRAM_PENALTIES
    }
    for one in tried.values():
        report(one)
    return min(tried, key=lambda penalty: tried[penalty].error(known.targets))


def choose_shares(known: Known, penalty: float, report: Report) -> Matrix:
    """The share of each kind of net in each target, and a constant (k, kinds + 1), by least squares
    on predictions for queries that the nets had not seen."""
    found = [np.zeros_like(known.targets) for _ in kinds(known)]
    for learnt, unseen in known.folds():
        fitted = _fit_all(known.only(learnt), penalty)
        inputs = fitted.basis.inputs(known.only(unseen))
        for predictions, net in zip(found, fitted.nets, strict=True):
            predictions[unseen] = outputs(net, inputs)
    for shape, predictions in zip(kinds(known), found, strict=True):
        report(Tried(shape.name, predictions))
    shares, blended = _shares(found, known.targets)
    report(Tried("all nets", blended))
    return shares


def fit_head(known: Known, penalty: float, shares: Matrix) -> dict[str, NDArray[np.generic]]:
    """The parts of the head, fitted on all queries, as they are stored."""
    fitted = _fit_all(known, penalty)
    basis, net = fitted.basis, mixed(fitted.nets, shares)
    parts = {
        **{part: getattr(net, part).astype(np.float32) for part in ("mean", "deviation", "bias")},
        **{part: getattr(net, part).astype(np.float32) for part in ("out", "constant")},
        "hidden": net.hidden.astype(np.float16),
        "low": basis.low.astype(np.float32),
        "high": basis.high.astype(np.float32),
        "idf": basis.idf.astype(np.float16),
        "ngrams": basis.ngrams.astype(np.float16),
        "ngrams_constant": basis.ngrams_constant.astype(np.float32),
        "projection": basis.projection,
        "queries": basis.queries,
        "labels": basis.labels,
        "domain": np.array([_domain(known, fitted.inputs)], dtype=np.float32),
    }
    return {part: np.ascontiguousarray(array) for part, array in parts.items()}


def kinds(known: Known) -> tuple[Shape, ...]:
    """Nets that read everything, and nets that do not read the embedding itself."""
    width = known.embeddings.shape[1]
    return (Shape("nets", 4, 64, 0), Shape("nets without embedding", 4, 32, width))


def _fit_all(known: Known, penalty: float) -> _Fitted:
    basis = make_basis(known, penalty)
    inputs = learning_inputs(basis, known, penalty)
    nets = [fit_nets(inputs, known.targets, shape) for shape in kinds(known)]
    return _Fitted(basis, inputs, nets)


def _domain(known: Known, inputs: Matrix) -> float:
    first = known.embeddings.shape[1] + known.numbers.shape[1]
    nearest, next_three = inputs[:, first : first + 2].T
    return float(np.percentile((nearest + 3 * next_three) / 4, OUTSIDE))


def _shares(found: Sequence[Matrix], targets: Matrix) -> tuple[Matrix, Matrix]:
    shares, blended = [], []
    for place in range(targets.shape[1]):
        columns = [predictions[:, place] for predictions in found]
        table = np.column_stack([*columns, np.ones(len(targets))])
        share = np.linalg.lstsq(table, targets[:, place], rcond=None)[0]
        shares.append(share)
        blended.append(table @ share)
    return np.array(shares), np.column_stack(blended)
