"""The text of a query: its normal form, and signs that it is no English text."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from assay_models.extraction.hidden_characters import remove_hidden
from assay_models.languages import LATIN, Languages, script_letters

# Characters that no reader sees, besides those without a glyph: marks that combine with no letter
# to another one, variation selectors, fillers, the blank of Braille, control characters.
_UNSEEN = re.compile(
    "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f"
    "\u115f\u1160\u2800\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\U000e0100-\U000e01ef]"
)
ENGLISH = Languages(("en",))
# Of the queries of VQPP and PQPP, one in ten thousand has this share of such words.
UNKNOWN_WORDS_SHARE = 0.5
UNKNOWN_WORD_PIECES = 3


def normalise(query: str) -> str:
    """Return a query as it is read: as a person sees it.

    Characters that no reader sees are removed, compatibility forms (full-width letters, ligatures)
    are replaced by the usual ones (Unicode's form NFKC), and every run of white space is one blank,
    with none at the ends.
    """
    seen, _ = remove_hidden(query)
    plain = _UNSEEN.sub("", unicodedata.normalize("NFKC", seen))
    # Letters on both sides of what was removed may compose.
    return " ".join(unicodedata.normalize("NFKC", plain).split())


def has_unseen(query: str) -> bool:
    """Return whether a query has characters that no reader sees."""
    removed = remove_hidden(query)[1]
    return removed > 0 or _UNSEEN.search(unicodedata.normalize("NFKC", query)) is not None


def has_letters(text: str) -> bool:
    """Return whether there is a letter in a text."""
    return any(map(str.isalpha, text))


def text_flags(query: str, pieces: Sequence[int | None]) -> tuple[str, ...]:
    """Return the flags of a query's text.

    `hidden_characters`: some were removed. `foreign_script`: a word has letters of another script
    than Latin. `not_english`: its words are more likely in another language. `unknown_words`: the
    tokenizer cuts half of the words into three pieces or more.

    Args:
        query: as it was sent.
        pieces: for each of its tokens the number of its word; None for special tokens.
    """
    text = normalise(query)
    is_latin = script_letters(text).keys() <= {LATIN}
    conditions: Mapping[str, bool] = {
        "hidden_characters": has_unseen(query),
        "foreign_script": not is_latin,
        "not_english": is_latin and not ENGLISH.can_read(text),
        "unknown_words": _unknown_share(pieces) >= UNKNOWN_WORDS_SHARE,
    }
    return tuple(name for name, holds in conditions.items() if holds)


def _unknown_share(pieces: Sequence[int | None]) -> float:
    words = Counter(word for word in pieces if word is not None)
    return sum(count >= UNKNOWN_WORD_PIECES for count in words.values()) / max(1, len(words))
