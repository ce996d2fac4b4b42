"""The hand-made predictors of VQPP and PQPP: features of a query, without any training.

Eight of the benchmarks' own (Poesina and others, arXiv 2406.04746; Lutu and others, arXiv
2602.17814), then characters and distinct words. The feature itself is the prediction.
"""

import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay_models.families.qpp.features import CONJUNCTIONS, PREPOSITIONS
from recipes.video_qpp.studies.wordnet import WordNet

Vector = NDArray[np.float64]
Tagger = Callable[[list[str]], list[tuple[str, str]]]

PROPER_NOUNS = "proper nouns per word"
SYNSETS = "synsets"
NEED_NLTK = "tokens need NLTK: pip install '.[benchmark]'"
REQUIREMENTS = {
    SYNSETS: "WordNet 3.0: pip install '.[benchmark]'",
    PROPER_NOUNS: "NLTK's English tagger: nltk.download('averaged_perceptron_tagger_eng')",
}
"""The requirement of each predictor that may be left out."""

_PRONOUNS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her
hers herself it its itself they them their theirs themselves what which who whom this that these
those
"""
_VERBS = "am is are was were be been being have has had having do does did doing will can should"
_OTHERS = """
a an the and but if or because as until while of at by for with about against between into through
during before after above below to from up down in out on off over under again further then once
here there when where why how all any both each few more most other some such no nor not only own
same so than too very just don now
"""
_PIECES = """
s t d ll m o re ve y ma ain aren couldn didn doesn hadn hasn haven isn mightn mustn needn shan
shouldn wasn weren won wouldn
"""
STOPWORDS = frozenset(f"{_PRONOUNS} {_VERBS} {_OTHERS} {_PIECES}".split())
"""The English words that NLTK's list leaves out, as far as its tokens can be one of them."""

_ACRONYM = re.compile(r"[A-Z]{2,}")
_PUNCTUATION = frozenset(string.punctuation)


def load_tokenizer() -> Callable[[str], list[str]]:
    """Load NLTK's word tokenizer, without the sentence splitter.

    Raises:
        SystemExit: NLTK is not installed.
    """
    try:
        from nltk.tokenize.destructive import NLTKWordTokenizer
    except ModuleNotFoundError as error:
        raise SystemExit(NEED_NLTK) from error
    tokenize: Callable[[str], list[str]] = NLTKWordTokenizer().tokenize
    return tokenize


def load_tagger() -> Tagger | None:
    """Load NLTK's averaged-perceptron tagger; None where its data are not on this machine."""
    try:
        from nltk.tag.perceptron import PerceptronTagger

        tagger: Any = PerceptronTagger()
    except LookupError:
        return None
    tag: Tagger = tagger.tag
    return tag


def handmade_features(
    texts: Sequence[str],
    tokenize: Callable[[str], list[str]],
    wordnet: WordNet | None,
    tagger: Tagger | None,
) -> dict[str, Vector]:
    """Return each predictor's name and values, shape (texts,).

    Synsets are included only with a WordNet, and proper nouns with a tagger. Tokens that are
    punctuation are left out, case makes no difference to words. `... per word` is the share among
    the tokens; the mean length is that of the words between blanks.
    """
    rows = [_features_of(text, tokenize(text), wordnet, tagger) for text in texts]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


def _features_of(
    text: str, all_tokens: Sequence[str], wordnet: WordNet | None, tagger: Tagger | None
) -> dict[str, float]:
    tokens = [token for token in all_tokens if token not in _PUNCTUATION]
    words = [token.lower() for token in tokens]
    count = max(1, len(tokens))
    row: dict[str, float] = {}
    if wordnet is not None:
        row[SYNSETS] = sum(wordnet.synsets(word) for word in words if word not in STOPWORDS)
    row |= {
        "words": float(len(tokens)),
        "mean word length": float(np.mean([len(word) for word in text.split()] or [0])),
        "acronyms per word": len(_ACRONYM.findall(text)) / count,
        "numerals per word": sum(token.isdigit() for token in tokens) / count,
        "conjunctions per word": sum(word in CONJUNCTIONS for word in words) / count,
        "prepositions per word": sum(word in PREPOSITIONS for word in words) / count,
        "characters": float(len(text)),
        "distinct words": float(len(set(words))),
    }
    if tagger is not None:
        row[PROPER_NOUNS] = sum(tag in ("NNP", "NNPS") for _, tag in tagger(tokens)) / count
    return row
