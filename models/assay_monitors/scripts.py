"""The script that a text is written in, from its letters alone."""

import math
from bisect import bisect_right
from collections import Counter

MAX_SAMPLED_CHARACTERS = 2048
NO_LETTERS = "none"
# The first code point of each range, in order; a range ends where the next one begins.
RANGES: tuple[tuple[int, str], ...] = (
    (0x0000, "latin"),
    (0x0370, "greek"),
    (0x0400, "cyrillic"),
    (0x0530, "other"),
    (0x0590, "hebrew"),
    (0x0600, "arabic"),
    (0x0780, "other"),
    (0x0900, "devanagari"),
    (0x0980, "other"),
    (0x0E00, "thai"),
    (0x0E80, "other"),
    (0x1100, "hangul"),
    (0x1200, "other"),
    (0x1E00, "latin"),
    (0x1F00, "greek"),
    (0x2000, "other"),
    (0x2E80, "han"),
    (0x3040, "kana"),
    (0x3100, "other"),
    (0x3130, "hangul"),
    (0x3190, "other"),
    (0x31F0, "kana"),
    (0x3200, "other"),
    (0x3400, "han"),
    (0xA000, "other"),
    (0xAC00, "hangul"),
    (0xD7B0, "other"),
    (0xF900, "han"),
    (0xFB00, "other"),
    (0xFF21, "latin"),
    (0xFF66, "kana"),
    (0xFFA0, "other"),
    (0x20000, "han"),
    (0x32000, "other"),
)
STARTS = [start for start, _ in RANGES]


def dominant_script(text: str) -> str:
    """Return the script of most letters: `latin`, `han`, `kana`, `cyrillic`, … `other`, or `none`.

    A long text is sampled: 2,048 characters, evenly spread. A script is not a language: French and
    English are both `latin`.
    """
    if text.isascii():
        return "latin" if any(map(str.isalpha, text)) else NO_LETTERS
    stride = max(1, math.ceil(len(text) / MAX_SAMPLED_CHARACTERS))
    counts: Counter[str] = Counter()
    for character, times in Counter(text[::stride]).items():
        if character.isalpha():
            counts[RANGES[bisect_right(STARTS, ord(character)) - 1][1]] += times
    return min(counts, key=lambda script: (-counts[script], script), default=NO_LETTERS)
