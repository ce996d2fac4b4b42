"""Baselines that do not read the pair: the majority, the hypothesis alone, shared words."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from recipes.nli.data import LABELS, Pair

Probabilities = NDArray[np.float64]
Baseline = Callable[[Sequence[Pair]], Probabilities]
"""From pairs to probabilities [pairs, labels] in the order of LABELS."""

_WORD = re.compile(r"\w+")
_NEGATION = frozenset({"no", "not", "never", "nobody", "nothing", "none", "n't", "cannot", "t"})


def fit_baselines(pairs: Sequence[Pair]) -> dict[str, Baseline]:
    """Fit the three baselines on the pairs that the model was trained on."""
    return {
        "majority class": _majority(pairs),
        "hypothesis only": _hypothesis_only(pairs),
        "word overlap": _word_overlap(pairs),
    }


def _majority(pairs: Sequence[Pair]) -> Baseline:
    counts = np.bincount(_labels(pairs), minlength=len(LABELS))
    return lambda tested: np.tile(counts / counts.sum(), (len(tested), 1))


def _hypothesis_only(pairs: Sequence[Pair]) -> Baseline:
    """Fit a logistic regression over hashed words and word pairs of the hypothesis."""
    model = make_pipeline(
        HashingVectorizer(n_features=2**16, ngram_range=(1, 2), alternate_sign=False),
        LogisticRegression(C=4.0, max_iter=300),
    )
    model.fit([pair.hypothesis for pair in pairs], _labels(pairs))
    return lambda tested: np.asarray(model.predict_proba([pair.hypothesis for pair in tested]))


def _word_overlap(pairs: Sequence[Pair]) -> Baseline:
    """Fit a logistic regression over shared words, lengths and negation."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    model.fit([_overlap_features(pair) for pair in pairs], _labels(pairs))
    return lambda tested: np.asarray(model.predict_proba(list(map(_overlap_features, tested))))


def _overlap_features(pair: Pair) -> list[float]:
    premise, hypothesis = (_WORD.findall(text.lower()) for text in (pair.premise, pair.hypothesis))
    first, second = set(premise), set(hypothesis)
    shared = len(first & second)
    return [
        shared / max(1, len(second)),
        shared / max(1, len(first | second)),
        np.log1p(len(premise)),
        np.log1p(len(hypothesis)),
        float(bool(second & _NEGATION)) - float(bool(first & _NEGATION)),
        float(bool(second & _NEGATION)),
    ]


def _labels(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    return np.array([LABELS.index(pair.label) for pair in pairs])
