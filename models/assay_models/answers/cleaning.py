"""The text of an answer without what carries no meaning."""

import re
import unicodedata

_SUPERSCRIPTS = str.maketrans(
    {
        **{char: f"^{digit}" for digit, char in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
        **dict.fromkeys("\u2212\u2013\ufe63\uff0d", "-"),
        "\u00a0": " ",
        "÷": "/",
        "½": " 1/2",
        "¼": " 1/4",
        "¾": " 3/4",
        "≤": r" \le ",
        "≥": r" \ge ",
        "≠": r" \ne ",
        "∞": r" \infty ",
        "π": r" \pi ",
        "\u222a": r" \cup ",
        "∩": r" \cap ",
        "∈": r" \in ",
        "±": r" \pm ",
        "∅": r" \emptyset ",
        "\u211d": r" \mathbb{R} ",
        "θ": r" \theta ",
    }
)
_SPACING = re.compile(
    r"\\[,;:!>]|~|\\(?:quad|qquad|displaystyle|textstyle|hfill|limits|left|right|bigl?|bigr|Bigl?|Bigr)"
    r"(?![A-Za-z])\.?|(?<!\\)\\ "
)
_SMALL_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_WRAPPINGS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_COMMANDS = (
    r"\boxed{",
    r"\fbox{",
    r"\text{",
    r"\mathrm{",
    r"\textbf{",
    r"\mathbf{",
    r"\mbox{",
    "{",
)
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?|[A-Za-z]))")
_DOLLAR = re.compile(r"(?<!\\)\$")
_UNWRAPPED = 8


def clean(text: str) -> str:
    """Return the text of an answer without delimiters, spacing commands and a final full stop."""
    text = unicodedata.normalize("NFKC", text.translate(_SUPERSCRIPTS)).strip()
    for _ in range(_UNWRAPPED):
        before = text
        text = _unwrapped(text)
        if text == before:
            break
    if len(_DOLLAR.findall(text)) in (2, 4, 6, 8):
        text = _DOLLAR.sub(" ", text).strip()
    text = _SMALL_FRACTION.sub(r"\\frac", _without_thin_spaces(text))
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
    return " ".join(_SPACING.sub(" ", text).split())


def closing_brace(text: str, start: int) -> int | None:
    """Return the place of the brace that closes the one in front of `start`; None without it."""
    depth = 1
    for place in range(start, len(text)):
        if text[place] in "{}" and text[place - 1] != "\\":
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return place
    return None


def _without_thin_spaces(text: str) -> str:
    text = re.sub(r"(?<=\d)\s*(?:,\\!|\{\s*,\s*\})\s*(?=\d{3}(?!\d))", "", text)
    return re.sub(r"(?<=\d)(?:\\[,!]|\u2009|\u202f)(?=\d{3}(?!\d))", "", text)


def _unwrapped(text: str) -> str:
    text = text.strip()
    if text.endswith(".") and not text.endswith(("..", r"\.")):
        text = text[:-1].strip()
    for opening, closing in _WRAPPINGS:
        inner = text[len(opening) : -len(closing)]
        if (
            len(text) > len(opening) + len(closing)
            and text.startswith(opening)
            and text.endswith(closing)
            and opening not in inner
            and closing not in inner
        ):
            return inner.strip()
    for command in _COMMANDS:
        if text.startswith(command) and closing_brace(text, len(command)) == len(text) - 1:
            return text[len(command) : -1].strip()
    return text
