"""Unsupervised post-retrieval predictors, from the scores and embeddings of a retrieved list.

Each returns a number that is higher where better results are expected. None is learnt and none is
calibrated. Scores come best first, shape (n,) in fp64; the order of equal scores has no effect.
Embeddings are rows of length 1 in fp64, shape (k, d), in the order of the results. Where a number
is not defined the functions on embeddings return None, and never a zero.
"""

import math

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Rows = NDArray[np.float64]


MIN_RESULTS_TO_CORRELATE = 3
"""The fewest results with an autocorrelation: with two results it is always -1."""


def deviation(scores: Scores) -> float:
    """Return the population standard deviation, in the unit of the scores; 0 for equal ones.

    Spread-out scores show that some results stand out from the rest (Perez-Iglesias and Araujo
    2010).
    """
    shifted = scores - scores[0]  # equal scores give exactly 0
    return float(np.sqrt(np.mean((shifted - shifted.mean()) ** 2)))


def mean(scores: Scores) -> float:
    """Return the mean, which is exactly the score itself where all are equal."""
    return float(scores[0] + np.mean(scores - scores[0]))


def wig(scores: Scores, corpus: float, words: int) -> float:
    """Compute weighted information gain (Zhou and Croft 2007).

    It is the mean of the scores minus the score of the corpus, over the square root of the number
    of query words.

    Args:
        scores: of the best k results; the paper has k = 5.
        corpus: the score of the whole corpus as one document, or another score in its place, such
            as the mean of the whole list.
        words: the number of the query's words, at least 1.
    """
    return float(np.mean(scores - corpus) / math.sqrt(words))


def nqc(scores: Scores, corpus: float) -> float:
    """Compute normalised query commitment (Shtok et al. 2012): `deviation` over |corpus score|.

    Args:
        scores: of the best k results; the paper has k = 100.
        corpus: as for `wig`, not 0.
    """
    return deviation(scores) / abs(corpus)


def smv(scores: Scores, corpus: float) -> float:
    """Compute score magnitude and variance (Tao and Wu 2014).

    It is the mean of s |ln(s / mean)|, over |score of the corpus|.

    Args:
        scores: of the best k results, all above 0.
        corpus: as for `wig`, not 0.
    """
    logarithms = np.log(scores / mean(scores))
    return float(np.mean(scores * np.abs(logarithms)) / abs(corpus))


def sigma_max(scores: Scores) -> float:
    """Return the greatest `deviation` of the best k scores over all k (Perez-Iglesias and Araujo
    2010).

    Welford's recurrence computes all k in one pass.
    """
    centre = squares = 0.0
    variances = []
    for count, score in enumerate((scores - scores[0]).tolist(), start=1):
        difference = score - centre
        centre += difference / count
        squares += difference * (score - centre)
        variances.append(squares / count)
    return float(np.sqrt(np.max(variances)))  # NaN stays NaN, so that it is reported


def sigma_share(scores: Scores, share: float) -> float:
    """Return the `deviation` of the scores that reach a share of the best one.

    The predictor is that of Cummins, Jose and O'Riordan (2011, there sigma with x = 50 per cent),
    without their normalisation by query length.

    Args:
        scores: of the whole list, the best above 0.
        share: 0..1.
    """
    return deviation(scores[scores >= share * scores[0]])


def top_gap(scores: Scores) -> float:
    """Return the difference of the best two scores, of at least two."""
    return float(scores[0] - scores[1])


def unit(vectors: Rows) -> Rows:
    """Scale vectors (..., d), none of length 0, to length 1, without overflow."""
    scaled = vectors / np.abs(vectors).max(axis=-1, keepdims=True)
    lengths = np.sqrt((scaled * scaled).sum(axis=-1, keepdims=True))
    rows: Rows = scaled / lengths
    return rows


def coherence(rows: Rows) -> float | None:
    """Return the mean cosine over all pairs of results, -1..1, or None for one result.

    Like the coherence of He, Larson and de Rijke (2008) it measures the similarity of the results.
    """
    count = len(rows)
    if count < 2:
        return None
    return float(_off_diagonal(rows @ rows.T).sum() / (count * (count - 1)))


def autocorrelation(scores: Scores, rows: Rows) -> float | None:
    """Return how far the scores of similar results are similar, -1..1, after Diaz (2007).

    It is Pearson's r between the scores and their diffused version: the mean of the other results'
    scores, weighted by cosine, negative ones as 0. It is None for fewer than three results, where
    the scores or their diffused version are all equal, or where a result is similar to no other.
    """
    if len(rows) < MIN_RESULTS_TO_CORRELATE:
        return None
    weights = _off_diagonal(np.maximum(rows @ rows.T, 0.0))
    sums = weights.sum(axis=1)
    if not sums.all():
        return None
    shifted = scores - scores[0]
    return _pearson(shifted, weights @ shifted / sums)


def clarity(scores: Scores, rows: Rows, temperature: float) -> float | None:
    """Return how far the best results stand out from the whole list, in nats, 0 or more.

    The form is that of clarity (Cronen-Townsend, Zhou and Croft 2002): the Kullback-Leibler
    divergence of a relevance model from a model of the collection. There are no words here, so a
    result is a distribution over the results, softmax(cosine / temperature); the relevance model
    weighs results by softmax of their standardised scores, and the collection is the list itself,
    with equal weights. It is 0 for equal scores, and None for one result.
    """
    if len(rows) < 2:
        return None
    models = _softmax(rows @ rows.T / temperature)
    uniform = np.full(len(rows), 1 / len(rows))
    spread = deviation(scores)
    if spread == 0:
        return 0.0
    relevance = _softmax((scores - scores[0]) / spread) @ models
    divergence = float((relevance * np.log(relevance / (uniform @ models))).sum())
    return max(0.0, divergence)


def query_fit(query: Rows, rows: Rows) -> float | None:
    """Return the cosine of the query (d,) with the sum of the results, -1..1.

    It measures how far the whole list is about the query. It is None where the results cancel out.
    """
    total = rows.sum(axis=0)
    length = float(np.sqrt(total @ total))
    if length == 0:
        return None
    return min(1.0, max(-1.0, float(query @ total) / length))


def _off_diagonal(matrix: Rows) -> Rows:
    """Return the matrix with a diagonal of 0."""
    cleared: Rows = matrix * (1 - np.eye(len(matrix)))
    return cleared


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
