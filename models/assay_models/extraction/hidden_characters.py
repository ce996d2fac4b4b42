"""Removal of the characters of a program that no editor shows."""

import re

# Characters of the category Cf that have no glyph: soft hyphen, zero widths and joiners, marks,
# embeddings, overrides and isolates of direction, invisible operators, annotations, tags. U+FDD0
# is no character at all (Unicode, section 23.7).
_RANGES = (
    *("\u00ad", "\u061c", "\u180e", "\u200b-\u200f", "\u202a-\u202e", "\u2060-\u2064"),
    *("\u2066-\u206f", "\ufdd0", "\ufeff", "\ufff9-\ufffb"),
    *("\U0001d173-\U0001d17a", "\U000e0001", "\U000e0020-\U000e007f"),
)
_HIDDEN = re.compile("[" + "".join(_RANGES) + "]")
_AT_START = re.compile(rf"^{_HIDDEN.pattern}++", re.MULTILINE)


def remove_hidden(text: str) -> tuple[str, int]:
    """Return `text` without its hidden characters, and their number.

    Zero-width and direction-changing characters are hidden: an editor does not show them, and a
    model reads them (Boucher and Anderson 2021, *Trojan Source*, arXiv 2111.00169).
    """
    return _HIDDEN.subn("", text)


def without_hidden_starts(text: str) -> str:
    """Return a text without the hidden characters that its lines begin with, as a BOM is."""
    return _AT_START.sub("", text)
