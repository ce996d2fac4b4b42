"""The learned pre-retrieval predictors of the benchmark, fitted on train and validation.

Every setting is chosen by the mean squared error on queries that were not learnt from, by shuffled
folds of whole clusters of alike queries (`design`); the tests have no part in any choice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from recipes.video_qpp.data import Matrix
from recipes.video_qpp.design import (
    Known,
    learning_inputs,
    make_basis,
    ngram_ridge,
    weigh,
)
from recipes.video_qpp.fit import choose_penalty

PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
LEAVES = (7, 15)
TREES = 100
RATE = 0.1
TREE_COMPONENTS = 64
"""Of the embedding that trees read: they take long on all of it."""

NEAREST = 16
CROWD = slice(15, 50)
"""Ranks 16 to 50: the nearest ones are often other captions of the same video."""

TFIDF, MINILM = "TF-IDF, ridge", "MiniLM, ridge"
LABELS, CROWDING = "mean label of the 16 nearest", "crowding: less mean cosine, ranks 16 to 50"
WORD_TREES = "word features, boosted trees"
ALL_RIDGE = "MiniLM, words, neighbours, ridge"
ALL_TREES = "MiniLM, words, neighbours, boosted trees"
BLEND = "blend of TF-IDF ridge and the two above"


@dataclass(frozen=True, slots=True)
class Asked:
    """The queries of a test, without their labels, and the hand-made features of both sides, shape
    (queries, features)."""

    unlabelled: Known
    handmade: Matrix
    handmade_known: Matrix


def predictions(
    known: Known, asked: Asked, told: Callable[[str], None]
) -> Iterator[tuple[str, Matrix]]:
    """Each predictor's name and what it foretells, shape (queries, targets).

    Args:
        known: the queries to learn from.
        asked: the queries of the test.
        told: is called with what was chosen.
    """
    penalty = choose_penalty(known, lambda tried: None)
    told(f"TF-IDF: penalty {penalty:g}")
    basis = make_basis(known, penalty)
    grams = ngram_ridge(penalty).fit(weigh(known.counts, basis.idf), known.targets)
    tfidf = np.asarray(grams.predict(weigh(asked.unlabelled.counts, basis.idf)))
    yield TFIDF, tfidf
    yield from _by_neighbours(known, asked.unlabelled)
    yield MINILM, _ridge(known, known.embeddings, asked.unlabelled.embeddings, told)
    yield WORD_TREES, _trees(known, asked.handmade_known, asked.handmade, told)
    # All but the n-grams' own predictions, which are the last columns.
    count = known.targets.shape[1]
    inputs = learning_inputs(basis, known, penalty)[:, :-count]
    unseen = basis.inputs(asked.unlabelled)[:, :-count]
    ridge = _ridge(known, inputs, unseen, told)
    yield ALL_RIDGE, ridge
    trees = _trees(known, *_narrow(basis.projection, inputs, unseen), told)
    yield ALL_TREES, trees
    yield BLEND, np.mean([_standard(one) for one in (tfidf, ridge, trees)], axis=0)


def _by_neighbours(known: Known, unlabelled: Known) -> Iterator[tuple[str, Matrix]]:
    """Two predictors that nothing is fitted for: cosines of whole embeddings."""
    embeddings = torch.from_numpy(known.embeddings)
    labels = torch.from_numpy(known.targets)
    voted, crowded = [], []
    for row in torch.from_numpy(unlabelled.embeddings):
        nearest = torch.topk(embeddings @ row, CROWD.stop)
        voted.append(labels[nearest.indices[:NEAREST]].mean(dim=0).numpy())
        crowded.append(-float(nearest.values[CROWD].mean()))
    yield LABELS, np.array(voted)
    yield CROWDING, np.repeat(np.array(crowded)[:, None], known.targets.shape[1], axis=1)


def _ridge(
    known: Known,
    inputs: NDArray[np.floating],
    unseen: NDArray[np.floating],
    told: Callable[[str], None],
) -> Matrix:
    """A ridge regression on standardised inputs, its penalty chosen by all folds."""
    x, asked = _standardised(inputs, unseen)
    errors = dict.fromkeys(PENALTIES, 0.0)
    for learnt, held in known.folds():
        fitted = _ridges(x[learnt], known.targets[learnt])
        for penalty, (weights, constant) in fitted.items():
            errors[penalty] += float(
                ((x[held] @ weights + constant - known.targets[held]) ** 2).sum()
            )
    chosen = min(errors, key=lambda penalty: errors[penalty])
    told(f"ridge on {x.shape[1]} inputs: penalty {chosen:g}")
    weights, constant = _ridges(x, known.targets)[chosen]
    found: Matrix = asked @ weights + constant
    return found


def _ridges(x: Matrix, targets: Matrix) -> dict[float, tuple[Matrix, Matrix]]:
    """For each penalty the weights (inputs, targets) and the constants, from one Gram matrix."""
    mean, middle = x.mean(axis=0), targets.mean(axis=0)
    gram, across = (x - mean).T @ (x - mean), (x - mean).T @ (targets - middle)
    found = {}
    for penalty in PENALTIES:
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), across)
        found[penalty] = (weights, middle - mean @ weights)
    return found


def _trees(known: Known, inputs: Matrix, unseen: Matrix, told: Callable[[str], None]) -> Matrix:
    """Boosted trees, one ensemble for each target; the number of leaves is chosen for the first
    target on the first fold."""
    learnt, held = known.folds()[0]
    first = known.targets[:, :1]
    errors = {
        leaves: _error(_boosted(leaves, inputs[learnt], first[learnt], inputs[held]), first[held])
        for leaves in LEAVES
    }
    chosen = min(errors, key=lambda leaves: errors[leaves])
    told(f"trees on {inputs.shape[1]} inputs: {chosen} leaves")
    return _boosted(chosen, inputs, known.targets, unseen)


def _boosted(leaves: int, inputs: Matrix, targets: Matrix, unseen: Matrix) -> Matrix:
    columns = []
    for target in targets.T:
        model = HistGradientBoostingRegressor(
            learning_rate=RATE,
            max_iter=TREES,
            max_leaf_nodes=leaves,
            min_samples_leaf=60,
            l2_regularization=10.0,
            early_stopping=False,
            random_state=0,
        )
        columns.append(model.fit(inputs, target).predict(unseen))
    return np.column_stack(columns)


def _narrow(
    projection: NDArray[np.float32], inputs: Matrix, unseen: Matrix
) -> tuple[Matrix, Matrix]:
    """The embedding's main components in its place, the largest first."""
    width, kept = projection.shape[0], projection[:, :TREE_COMPONENTS]
    both = [np.hstack([one[:, :width] @ kept, one[:, width:]]) for one in (inputs, unseen)]
    return both[0], both[1]


def _standardised(
    inputs: NDArray[np.floating], unseen: NDArray[np.floating]
) -> tuple[Matrix, Matrix]:
    mean, deviation = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0) + 1e-9
    return (inputs - mean) / deviation, (unseen - mean) / deviation


def _standard(values: Matrix) -> Matrix:
    found: Matrix = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-12)
    return found


def _error(foretold: Matrix, targets: Matrix) -> float:
    return float(((foretold - targets) ** 2).mean())


def as_columns(features: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> Matrix:
    """Some features as columns."""
    return np.column_stack([features[name] for name in names])
