"""The learned pre-retrieval predictors of the benchmark, fitted on train and validation.

Every setting is chosen by the mean squared error on queries that were not learnt from, by shuffled
folds of whole clusters of similar queries (`head_inputs`); the tests are not used in any choice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from recipes.video_qpp.data import Matrix
from recipes.video_qpp.fit import choose_penalty
from recipes.video_qpp.head_inputs import (
    LabelledQueries,
    fit_basis,
    ngram_ridge,
    tf_idf,
    training_inputs,
)

PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
LEAVES = (7, 15)
TREES = 100
LEARNING_RATE = 0.1
TREE_COMPONENTS = 64
"""Components of the embedding that trees read: they take long on all of it."""

NEAREST = 16
CROWD = slice(15, 50)
"""Ranks 16 to 50: the nearest ones are often other captions of the same video."""

TFIDF, MINILM = "TF-IDF, ridge", "MiniLM, ridge"
LABELS, CROWDING = "mean label of the 16 nearest", "crowding: less mean cosine, ranks 16 to 50"
WORD_TREES = "word features, boosted trees"
ALL_RIDGE = "MiniLM, words, neighbours, ridge"
ALL_TREES = "MiniLM, words, neighbours, boosted trees"
BLEND = "blend of TF-IDF ridge and the two above"

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PredictionInputs:
    """The queries of a test, without their labels, and the hand-made features of the training and
    the test queries, shape (queries, features)."""

    unlabelled: LabelledQueries
    handmade: Matrix
    train_handmade: Matrix


def predictions(
    known: LabelledQueries, tested: PredictionInputs, log: Log
) -> Iterator[tuple[str, Matrix]]:
    """Yield each predictor's name and its predictions, shape (queries, targets).

    Args:
        known: the queries to learn from.
        tested: the queries of the test.
        log: is called with each chosen setting.
    """
    penalty = choose_penalty(known, lambda candidate: None)
    log(f"TF-IDF: penalty {penalty:g}")
    basis = fit_basis(known, penalty)
    grams = ngram_ridge(penalty).fit(tf_idf(known.counts, basis.idf), known.targets)
    tfidf = np.asarray(grams.predict(tf_idf(tested.unlabelled.counts, basis.idf)))
    yield TFIDF, tfidf
    yield from _by_neighbours(known, tested.unlabelled)
    yield MINILM, _ridge(known, known.embeddings, tested.unlabelled.embeddings, log)
    yield WORD_TREES, _trees(known, tested.train_handmade, tested.handmade, log)
    # All but the n-grams' own predictions, which are the last columns.
    count = known.targets.shape[1]
    inputs = training_inputs(basis, known, penalty)[:, :-count]
    unseen = basis.inputs(tested.unlabelled)[:, :-count]
    ridge = _ridge(known, inputs, unseen, log)
    yield ALL_RIDGE, ridge
    reduced = [_reduce_embedding(basis.projection, rows) for rows in (inputs, unseen)]
    trees = _trees(known, reduced[0], reduced[1], log)
    yield ALL_TREES, trees
    yield BLEND, np.mean([_z_scores(predicted) for predicted in (tfidf, ridge, trees)], axis=0)


def _by_neighbours(
    known: LabelledQueries, unlabelled: LabelledQueries
) -> Iterator[tuple[str, Matrix]]:
    """Yield two predictors without any fitting: cosines of whole embeddings."""
    embeddings = torch.from_numpy(known.embeddings)
    labels = torch.from_numpy(known.targets)
    mean_labels, crowding = [], []
    for row in torch.from_numpy(unlabelled.embeddings):
        nearest = torch.topk(embeddings @ row, CROWD.stop)
        mean_labels.append(labels[nearest.indices[:NEAREST]].mean(dim=0).numpy())
        crowding.append(-float(nearest.values[CROWD].mean()))
    yield LABELS, np.array(mean_labels)
    yield CROWDING, np.repeat(np.array(crowding)[:, None], known.targets.shape[1], axis=1)


def _ridge(
    known: LabelledQueries,
    inputs: NDArray[np.floating],
    unseen: NDArray[np.floating],
    log: Log,
) -> Matrix:
    """Fit a ridge regression on standardised inputs, its penalty chosen by all folds."""
    x, unseen_x = _standardise(inputs, unseen)
    errors = dict.fromkeys(PENALTIES, 0.0)
    for train, held_out in known.folds():
        fitted = _ridge_path(x[train], known.targets[train])
        for penalty, (weights, constant) in fitted.items():
            residuals = x[held_out] @ weights + constant - known.targets[held_out]
            errors[penalty] += float((residuals**2).sum())
    best = min(errors, key=lambda penalty: errors[penalty])
    log(f"ridge on {x.shape[1]} inputs: penalty {best:g}")
    weights, constant = _ridge_path(x, known.targets)[best]
    predicted: Matrix = unseen_x @ weights + constant
    return predicted


def _ridge_path(x: Matrix, targets: Matrix) -> dict[float, tuple[Matrix, Matrix]]:
    """Return the weights (inputs, targets) and the constants for each penalty, from one Gram
    matrix."""
    mean, target_mean = x.mean(axis=0), targets.mean(axis=0)
    gram, cross = (x - mean).T @ (x - mean), (x - mean).T @ (targets - target_mean)
    path = {}
    for penalty in PENALTIES:
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), cross)
        path[penalty] = (weights, target_mean - mean @ weights)
    return path


def _trees(known: LabelledQueries, inputs: Matrix, unseen: Matrix, log: Log) -> Matrix:
    """Fit boosted trees, one ensemble for each target.

    The number of leaves is chosen for the first target on the first fold.
    """
    train, held_out = known.folds()[0]
    first = known.targets[:, :1]
    errors = {}
    for leaves in LEAVES:
        predicted = _boost(leaves, inputs[train], first[train], inputs[held_out])
        errors[leaves] = float(((predicted - first[held_out]) ** 2).mean())
    best = min(errors, key=lambda leaves: errors[leaves])
    log(f"trees on {inputs.shape[1]} inputs: {best} leaves")
    return _boost(best, inputs, known.targets, unseen)


def _boost(leaves: int, inputs: Matrix, targets: Matrix, unseen: Matrix) -> Matrix:
    columns = []
    for target in targets.T:
        model = HistGradientBoostingRegressor(
            learning_rate=LEARNING_RATE,
            max_iter=TREES,
            max_leaf_nodes=leaves,
            min_samples_leaf=60,
            l2_regularization=10.0,
            early_stopping=False,
            random_state=0,
        )
        columns.append(model.fit(inputs, target).predict(unseen))
    return np.column_stack(columns)


def _reduce_embedding(projection: NDArray[np.float32], inputs: Matrix) -> Matrix:
    """Replace the embedding by its main components, the largest first."""
    width, components = projection.shape[0], projection[:, :TREE_COMPONENTS]
    return np.hstack([inputs[:, :width] @ components, inputs[:, width:]])


def _standardise(
    inputs: NDArray[np.floating], unseen: NDArray[np.floating]
) -> tuple[Matrix, Matrix]:
    mean, deviation = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0) + 1e-9
    return (inputs - mean) / deviation, (unseen - mean) / deviation


def _z_scores(values: Matrix) -> Matrix:
    scores: Matrix = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-12)
    return scores


def as_columns(features: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> Matrix:
    """Return some features as columns."""
    return np.column_stack([features[name] for name in names])
