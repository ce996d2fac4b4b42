"""What the scores of a retrieved list say of how well the query was answered.

The unsupervised post-retrieval predictors of the field, each a number that is higher where the
query is expected to have gone better. None is learnt and none is calibrated. All functions take
scores best first, shape (n,) in fp64, and are blind to the order of equal ones.
"""

import math

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


def deviation(scores: Scores) -> float:
    """The population standard deviation, in the unit of the scores; 0 for equal ones.

    Spread-out scores say that some results stand out of the rest (Perez-Iglesias and Araujo 2010).
    """
    apart = scores - scores[0]  # equal scores give exactly 0
    return float(np.sqrt(np.mean((apart - apart.mean()) ** 2)))


def mean(scores: Scores) -> float:
    """The mean, which is the score itself where all are equal."""
    return float(scores[0] + np.mean(scores - scores[0]))


def wig(scores: Scores, corpus: float, words: int) -> float:
    """Weighted information gain (Zhou and Croft 2007): by how much the mean of the scores exceeds
    that of the corpus, over the square root of the number of query words.

    Args:
        scores: of the best k results; the paper has k = 5.
        corpus: the score of the whole corpus as one document, or what stands for it.
        words: of the query, at least 1.
    """
    return float(np.mean(scores - corpus) / math.sqrt(words))


def nqc(scores: Scores, corpus: float) -> float:
    """Normalised query commitment (Shtok et al. 2012): `deviation` over |score of the corpus|.

    Args:
        scores: of the best k results; the paper has k = 100.
        corpus: as for `wig`, not 0.
    """
    return deviation(scores) / abs(corpus)


def smv(scores: Scores, corpus: float) -> float:
    """Score magnitude and variance (Tao and Wu 2014): the mean of s |ln(s / mean)|, over |score of
    the corpus|.

    Args:
        scores: of the best k results, all above 0.
        corpus: as for `wig`, not 0.
    """
    logarithms = np.log(scores / mean(scores))
    return float(np.mean(scores * np.abs(logarithms)) / abs(corpus))


def sigma_max(scores: Scores) -> float:
    """The greatest `deviation` of the best k scores over all k (Perez-Iglesias and Araujo 2010).

    By Welford's recurrence, so that one pass serves all k.
    """
    centre = squares = 0.0
    variances = []
    for count, score in enumerate((scores - scores[0]).tolist(), start=1):
        off = score - centre
        centre += off / count
        squares += off * (score - centre)
        variances.append(squares / count)
    return float(np.sqrt(np.max(variances)))  # NaN stays NaN, so that it is told


def sigma_share(scores: Scores, share: float) -> float:
    """The `deviation` of the scores that reach a share of the best one (Cummins, Jose and O'Riordan
    2011, there sigma with x = 50 per cent), without their normalisation by query length.

    Args:
        scores: of the whole list, the best above 0.
        share: 0..1.
    """
    return deviation(scores[scores >= share * scores[0]])


def top_gap(scores: Scores) -> float:
    """By how much the best result is ahead of the second, of at least two."""
    return float(scores[0] - scores[1])
