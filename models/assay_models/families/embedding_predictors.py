"""What the embeddings of retrieved results say of how well the query was answered.

Embeddings are rows of length 1 in fp64, shape (k, d), in the order of the results. Where a number
is not defined the functions return None: what cannot be computed is not served as a zero.
"""

import numpy as np
from numpy.typing import NDArray

from assay_models.families.score_predictors import Scores, deviation

Rows = NDArray[np.float64]

FEWEST_TO_CORRELATE = 3
"""With two results the other one is all the surroundings there are, and the correlation is -1."""


def unit(vectors: Rows) -> Rows:
    """Vectors (..., d), none of length 0, at length 1; scaled first, so that none overflows."""
    scaled = vectors / np.abs(vectors).max(axis=-1, keepdims=True)
    lengths = np.sqrt((scaled * scaled).sum(axis=-1, keepdims=True))
    rows: Rows = scaled / lengths
    return rows


def coherence(rows: Rows) -> float | None:
    """The mean cosine of two different results, -1..1 (as the coherence of He, Larson and de Rijke
    2008 asks how alike the results are); None for one result."""
    count = len(rows)
    if count < 2:
        return None
    return float(_apart(rows @ rows.T).sum() / (count * (count - 1)))


def autocorrelation(scores: Scores, rows: Rows) -> float | None:
    """How far the scores of alike results are alike, -1..1, after Diaz (2007).

    Pearson's r between the scores and their diffused version: the mean of the other results'
    scores, weighed by cosine, negative ones as 0. None for fewer than three results, where the
    scores or their diffused version are all equal, or where a result is like no other.
    """
    if len(rows) < FEWEST_TO_CORRELATE:
        return None
    weights = _apart(np.maximum(rows @ rows.T, 0.0))
    sums = weights.sum(axis=1)
    if not sums.all():
        return None
    apart = scores - scores[0]
    return _pearson(apart, weights @ apart / sums)


def clarity(scores: Scores, rows: Rows, temperature: float) -> float | None:
    """How far the best results stand out of the list as a whole, in nats, 0 or more.

    The form is that of clarity (Cronen-Townsend, Zhou and Croft 2002): the Kullback-Leibler
    divergence of a relevance model from a model of the collection. There are no words here, so a
    result is a distribution over the results, softmax(cosine / temperature); the relevance model
    weighs results by softmax of their standardised scores, and the collection is the list itself,
    every result alike. 0 for equal scores; None for one result.
    """
    if len(rows) < 2:
        return None
    models = _softmax(rows @ rows.T / temperature)
    even = np.full(len(rows), 1 / len(rows))
    spread = deviation(scores)
    if spread == 0:
        return 0.0
    relevance = _softmax((scores - scores[0]) / spread) @ models
    divergence = float((relevance * np.log(relevance / (even @ models))).sum())
    return max(0.0, divergence)


def query_fit(query: Rows, rows: Rows) -> float | None:
    """The cosine of the query (d,) with the sum of the results, -1..1: how far the list as a whole
    is about the query. None where the results cancel out."""
    total = rows.sum(axis=0)
    length = float(np.sqrt(total @ total))
    if length == 0:
        return None
    return min(1.0, max(-1.0, float(query @ total) / length))


def _apart(matrix: Rows) -> Rows:
    """The matrix with a diagonal of 0."""
    found: Rows = matrix * (1 - np.eye(len(matrix)))
    return found


def _softmax(logits: Rows) -> Rows:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Rows = weights / weights.sum(axis=-1, keepdims=True)
    return shares


def _pearson(left: Scores, right: Scores) -> float | None:
    left, right = left - left.mean(), right - right.mean()
    lengths = np.sqrt((left @ left) * (right @ right))
    if lengths == 0:
        return None
    return min(1.0, max(-1.0, float(left @ right / lengths)))
