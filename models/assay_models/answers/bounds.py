"""Bounds on a mathematical text, checked before it is parsed."""

import re

MAX_CHARACTERS = 2000
MAX_DEPTH = 40
MAX_DIGITS = 300
MAX_EXPONENT = 10_000

_DIGITS = re.compile(r"\d+")
_EXPONENT = re.compile(r"(?:\^|\*\*)\s*\{?\s*[-+]?\s*(\d+)")
_TOWER = re.compile(
    r"(?:\^|\*\*)\s*\{[^{}]*\d[^{}]*(?:\^|\*\*)|\d\s*\^\s*\d+\s*\^|\d\s*\*\*\s*\d+\s*\*\*"
)
_FACTORIAL = re.compile(r"(\d{5,}|\))\s*!|!\s*!")


def broken_bound(text: str) -> str | None:
    """Return which bound a text exceeds; None if it may be parsed.

    What these do not see, such as a long sum, is left to the CPU time of the worker.
    """
    if len(text) > MAX_CHARACTERS:
        return f"it has more than {MAX_CHARACTERS} characters"
    if _depth(text) > MAX_DEPTH:
        return f"its brackets are nested deeper than {MAX_DEPTH}"
    if any(len(digits) > MAX_DIGITS for digits in _DIGITS.findall(text)):
        return f"a number in it has more than {MAX_DIGITS} digits"
    if any(len(n) > 9 or int(n) > MAX_EXPONENT for n in _EXPONENT.findall(text)):
        return f"an exponent in it is larger than {MAX_EXPONENT}"
    if _TOWER.search(text):
        return "it has a power in an exponent"
    if _FACTORIAL.search(text):
        return "it has a factorial of a large number or of an expression"
    return None


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth = max(0, depth - 1)
    return deepest
