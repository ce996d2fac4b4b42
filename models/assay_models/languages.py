"""Detection of texts in a language that a checker cannot read.

A script is detected by its letters, a language among those of one script by py3langid, which needs
words.
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
# The characters of a long text that decide.
SAMPLE_CHARACTERS = 400
# Fewer words in lower case are names, formulae, code or lists, which have no language.
MIN_WORDS = 3
# The log-likelihood of another language must be higher by this, in nats.
MIN_MARGIN = 15.0
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
_MAX_SYMBOL_LETTERS = 2


@dataclass(frozen=True, slots=True)
class Languages:
    """The languages that a checker can read, as ISO 639-1 codes; `any` stands for all."""

    codes: tuple[str, ...]

    def can_read(self, text: str) -> bool:
        """Return whether a text may be in one of them; in doubt it may.

        It may not if most letters are of another script, except in words of one or two letters
        (symbols, units). It may not if its words in lower case, at least three different ones, are
        more likely in another language by 15 nats: names, numbers, formulae and code have no
        language.
        """
        if ANY in self.codes:
            return True
        sample = _NO_PROSE.sub(" ", unicodedata.normalize("NFKC", text[:SAMPLE_CHARACTERS]))
        scripts = script_letters(sample)
        known = frozenset[str]().union(*(_SCRIPTS.get(code, {LATIN}) for code in self.codes))
        foreign = sum(count for script, count in scripts.items() if script not in known)
        if 2 * foreign > scripts.total():
            return False
        return not self._is_in_another_language(sample)

    def _is_in_another_language(self, sample: str) -> bool:
        words = [word for word in _WORDS.findall(sample) if len(word) > 1 and word.islower()]
        if len(set(words)) < MIN_WORDS:
            return False
        # Names are foreign in every language, so only these words count.
        prose = " ".join(words)
        most_likely, _ = _identifier().classify(prose)
        if most_likely in self.codes or most_likely == NO_LANGUAGE:
            return False
        likelihoods = {code: float(value) for code, value in _identifier().rank(prose)}
        own = max((likelihoods[code] for code in self.codes if code in likelihoods), default=None)
        return own is not None and likelihoods[most_likely] - own > MIN_MARGIN


def known_codes() -> frozenset[str]:
    """Return the codes that can be distinguished, and `any`."""
    return frozenset(_identifier().labels) | {ANY}


def script_letters(text: str) -> Counter[str]:
    """Count the letters of each script in a text, by the names of characters in Unicode.

    Words of one or two letters count only for Latin and for scripts that write no spaces.
    """
    counts: Counter[str] = Counter()
    for word in _WORDS.findall(text):
        own = Counter(map(_script, word))
        if len(word) <= _MAX_SYMBOL_LETTERS:
            own = Counter({name: n for name, n in own.items() if name in _SHORT_WORDS})
        counts += own
    return counts


_SHORT_WORDS = frozenset({LATIN, "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "KHMER"})


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNNAMED").partition(" ")[0]


@cache
def _identifier() -> Any:
    # Four megabytes and half a second, once a process and only for a model that detects languages.
    return LanguageIdentifier.from_model_file(MODEL_FILE)
