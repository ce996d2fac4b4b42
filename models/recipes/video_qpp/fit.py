"""Fitting the head of one collection, and its performance on unseen queries.

All settings are chosen by cross-validation on queries whose labels are known; the official tests
are not used. The shuffled folds contain whole clusters of similar queries: captions of one video
leak each other's labels, and a new query has no such caption among the training ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from assay_models.families.qpp.heads import Net
from recipes.video_qpp.data import Matrix
from recipes.video_qpp.head_inputs import (
    SEED,
    HeadBasis,
    LabelledQueries,
    fit_basis,
    ngram_predictions,
    read_text_features,
    training_inputs,
)
from recipes.video_qpp.nets import NetShape, blend_nets, fit_nets, net_outputs

QUERIES_PER_CLUSTER = 15
NGRAM_PENALTIES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
OUT_OF_DOMAIN_PERCENTILE = 0.1
"""Percentile of the training queries' own nearness below which a query is out of domain."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row of the cross-validation table: the name of the model, and its predictions for each
    query by the folds that did not contain it (n, targets)."""

    name: str
    predictions: Matrix

    def error(self, targets: Matrix) -> float:
        """Return the mean squared error over queries and targets."""
        return float(((self.predictions - targets) ** 2).mean())

    def correlations(self, targets: Matrix) -> list[float]:
        """Return Pearson's r of each target."""
        pairs = zip(self.predictions.T, targets.T, strict=True)
        return [float(np.corrcoef(predicted, true)[0, 1]) for predicted, true in pairs]


@dataclass(frozen=True, slots=True)
class _FittedHead:
    """A basis, the inputs (n, columns) that the nets were trained on, and the nets."""

    basis: HeadBasis
    inputs: Matrix
    nets: Sequence[Net]


Report = Callable[[Candidate], None]


def prepare_queries(
    texts: Sequence[str], embeddings: NDArray[np.float32], targets: Matrix
) -> LabelledQueries:
    """Return the queries to learn from, in clusters of about 15 similar ones."""
    word_features, counts = read_text_features(texts)
    clusters = MiniBatchKMeans(
        len(embeddings) // QUERIES_PER_CLUSTER,
        random_state=SEED,
        batch_size=4096,
        n_init=1,
        max_iter=30,
    ).fit_predict(embeddings)
    return LabelledQueries(
        embeddings=embeddings,
        word_features=word_features,
        counts=counts,
        targets=targets,
        clusters=clusters.astype(np.int64),
    )


def choose_penalty(known: LabelledQueries, report: Report) -> float:
    """Return the penalty of the regression on n-grams with the least cross-validated squared
    error."""
    candidates = {
        penalty: Candidate(f"n-grams {penalty:g}", ngram_predictions(known, penalty))
        for penalty in NGRAM_PENALTIES
    }
    for candidate in candidates.values():
        report(candidate)
    return min(candidates, key=lambda penalty: candidates[penalty].error(known.targets))


def choose_blend(known: LabelledQueries, penalty: float, report: Report) -> Matrix:
    """Return the weight of each kind of net in each target, and a constant (k, kinds + 1).

    They are fitted by least squares on predictions for queries that the nets were not fitted on.
    """
    by_shape = [np.zeros_like(known.targets) for _ in net_shapes(known)]
    for train, unseen in known.folds():
        fitted = _fit_all(known.of_rows(train), penalty)
        inputs = fitted.basis.inputs(known.of_rows(unseen))
        for predictions, net in zip(by_shape, fitted.nets, strict=True):
            predictions[unseen] = net_outputs(net, inputs)
    for shape, predictions in zip(net_shapes(known), by_shape, strict=True):
        report(Candidate(shape.name, predictions))
    weights, blended = _least_squares_blend(by_shape, known.targets)
    report(Candidate("all nets", blended))
    return weights


def fit_head(
    known: LabelledQueries, penalty: float, weights: Matrix
) -> dict[str, NDArray[np.generic]]:
    """Fit the head on all queries; return its parts as they are stored."""
    fitted = _fit_all(known, penalty)
    basis, net = fitted.basis, blend_nets(fitted.nets, weights)
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
        "domain": np.array([_domain_threshold(known, fitted.inputs)], dtype=np.float32),
    }
    return {part: np.ascontiguousarray(array) for part, array in parts.items()}


def net_shapes(known: LabelledQueries) -> tuple[NetShape, ...]:
    """Return nets that read all inputs, and nets that do not read the embedding itself."""
    width = known.embeddings.shape[1]
    return (NetShape("nets", 4, 64, 0), NetShape("nets without embedding", 4, 32, width))


def _fit_all(known: LabelledQueries, penalty: float) -> _FittedHead:
    basis = fit_basis(known, penalty)
    inputs = training_inputs(basis, known, penalty)
    nets = [fit_nets(inputs, known.targets, shape) for shape in net_shapes(known)]
    return _FittedHead(basis, inputs, nets)


def _domain_threshold(known: LabelledQueries, inputs: Matrix) -> float:
    first = known.embeddings.shape[1] + known.word_features.shape[1]
    nearest, next_three = inputs[:, first : first + 2].T
    return float(np.percentile((nearest + 3 * next_three) / 4, OUT_OF_DOMAIN_PERCENTILE))


def _least_squares_blend(by_shape: Sequence[Matrix], targets: Matrix) -> tuple[Matrix, Matrix]:
    weights, blended = [], []
    for target in range(targets.shape[1]):
        columns = [predictions[:, target] for predictions in by_shape]
        table = np.column_stack([*columns, np.ones(len(targets))])
        solution = np.linalg.lstsq(table, targets[:, target], rcond=None)[0]
        weights.append(solution)
        blended.append(table @ solution)
    return np.array(weights), np.column_stack(blended)
