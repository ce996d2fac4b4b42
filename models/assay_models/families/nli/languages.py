"""Whether a text is in a language that a checker can read.

A script is told by its letters; languages of one script by py3langid, which needs words.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier

ANY = "any"
# Of a long text so many characters decide.
SAMPLE = 400
# Fewer words in small letters are names, formulae, code or lists, whose language is nobody's.
LEAST_WORDS = 3
# How much likelier another language must make the text, in nats.
LEAST_MARGIN = 15.0
NO_LANGUAGE = "zxx"
LATIN = "LATIN"
_SCRIPTS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("be", "bg", "kk", "ky", "mk", "mn", "ru", "uk"), frozenset({"CYRILLIC"})),
    **dict.fromkeys(("ar", "fa", "ps", "ug", "ur"), frozenset({"ARABIC"})),
    **dict.fromkeys(("hi", "mr", "ne"), frozenset({"DEVANAGARI"})),
    **dict.fromkeys(("he", "yi"), frozenset({"HEBREW"})),
    "am": frozenset({"ETHIOPIC"}),
    "bn": frozenset({"BENGALI"}),
    "el": frozenset({"GREEK"}),
    "hy": frozenset({"ARMENIAN"}),
    "ja": frozenset({"CJK", "HIRAGANA", "KATAKANA"}),
    "ka": frozenset({"GEORGIAN"}),
    "km": frozenset({"KHMER"}),
    "ko": frozenset({"HANGUL"}),
    "sr": frozenset({"CYRILLIC", LATIN}),
    "ta": frozenset({"TAMIL"}),
    "te": frozenset({"TELUGU"}),
    "th": frozenset({"THAI"}),
    "zh": frozenset({"CJK"}),
}
_WORDS = re.compile(r"[^\W\d_]+")
_NO_PROSE = re.compile(r"`[^`\n]{0,500}`|(?:https?://|www\.)\S+")
_SYMBOLS = 2


@dataclass(frozen=True, slots=True)
class Languages:
    """The languages that a checker can read, as ISO 639-1 codes; `any` among them: whatever."""

    codes: tuple[str, ...]

    def reads(self, text: str) -> bool:
        """Whether a text may be in one of them; one that cannot be told may.

        It may not where most letters are of another script, words of one or two letters aside
        (symbols, units), nor where another language makes its words in small letters, three
        different ones at least, likelier by 15 nats: names, numbers, formulae and code have no
        language.
        """
        if ANY in self.codes:
            return True
        sample = _NO_PROSE.sub(" ", unicodedata.normalize("NFKC", text[:SAMPLE]))
        scripts = script_letters(sample)
        known = frozenset[str]().union(*(_SCRIPTS.get(code, {LATIN}) for code in self.codes))
        foreign = sum(count for script, count in scripts.items() if script not in known)
        if 2 * foreign > scripts.total():
            return False
        return not self._likelier_another(sample)

    def _likelier_another(self, sample: str) -> bool:
        small = [word for word in _WORDS.findall(sample) if len(word) > 1 and word.islower()]
        if len(set(small)) < LEAST_WORDS:
            return False
        # Names are foreign in every language, so only these words are asked.
        prose = " ".join(small)
        likeliest, _ = _identifier().classify(prose)
        if likeliest in self.codes or likeliest == NO_LANGUAGE:
            return False
        likelihoods = {code: float(value) for code, value in _identifier().rank(prose)}
        own = max((likelihoods[code] for code in self.codes if code in likelihoods), default=None)
        return own is not None and likelihoods[likeliest] - own > LEAST_MARGIN


def known_codes() -> frozenset[str]:
    """The codes that can be told from one another, and `any`."""
    return frozenset(_identifier().labels) | {ANY}


def script_letters(text: str) -> Counter[str]:
    """How many letters of each script a text has, by Unicode's names of them.

    Words of one or two letters count for Latin and for scripts that write no spaces alone.
    """
    counts: Counter[str] = Counter()
    for word in _WORDS.findall(text):
        own = Counter(map(_script, word))
        if len(word) <= _SYMBOLS:
            own = Counter({name: n for name, n in own.items() if name in _SHORT_WORDS})
        counts += own
    return counts


_SHORT_WORDS = frozenset({LATIN, "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "KHMER"})


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNNAMED").partition(" ")[0]


@cache
def _identifier() -> Any:
    # Four megabytes and half a second, for a model that must know languages, and once a process.
    return LanguageIdentifier.from_model_file(MODEL_FILE)
