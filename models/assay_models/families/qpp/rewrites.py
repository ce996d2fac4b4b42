"""Measures of the distance between a rewritten query and its original.

A predictor of retrieval gives higher scores to detail, even if it is made up. These three numbers
are returned beside its score, so that a training can keep a rewrite near the original.
"""

import math
from collections.abc import Sequence

from assay_models.families.qpp.features import CONJUNCTIONS, PREPOSITIONS, words_of

_OTHERS = """
a an the this that these those some any each every all both either neither no none not
i you he she it we they me him her us them my your his its our their mine yours hers ours theirs
myself yourself himself herself itself ourselves themselves who whom whose which what when where
why how there here one ones someone somebody something anyone anything everyone everything
am is are was were be been being do does did done doing have has had having can could may might
must shall should will would isn't aren't wasn't weren't don't doesn't didn't can't won't
if because although while whereas whether than then also too very just only even
"""
FUNCTION_WORDS = CONJUNCTIONS | PREPOSITIONS | frozenset(_OTHERS.split())
"""Words that name nothing visible. All others are content words."""


def similarity(embedding: Sequence[float], original: Sequence[float]) -> float:
    """Return the cosine of two embeddings, -1..1; NaN where one is not finite."""
    across, own, other = (
        math.fsum(x * y for x, y in zip(left, right, strict=True))
        for left, right in (
            (embedding, original),
            (embedding, embedding),
            (original, original),
        )
    )
    length = math.sqrt(own * other)
    cosine = across / length if length else 0.0
    return cosine if math.isnan(cosine) else min(1.0, max(-1.0, cosine))


def length_change(text: str, original: str) -> float:
    """Return ln(words of the text / words of the original).

    It is 0 for the same number of words, and 0.69 for twice as many.

    A text without a word counts as one word.
    """
    return math.log(_length(text) / _length(original))


def novelty(text: str, original: str) -> float:
    """Return the share of the text's distinct content words that the original does not have, 0..1.

    Words are compared letter by letter without case, so another form of a word is a new one. For a
    text without content words it is 0.
    """
    content = set(words_of(text)) - FUNCTION_WORDS
    new = content - set(words_of(original))
    return len(new) / max(1, len(content))


def _length(text: str) -> int:
    return max(1, len(words_of(text)))
