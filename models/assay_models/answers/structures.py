"""Forms of lists, sets, tuples, intervals and inequalities, from the forms of their parts."""

import hashlib
import re
from collections.abc import Callable
from fractions import Fraction

Leaf = Callable[[str], str | None]
"""The form of a part; None if it has none."""

MAX_FORM_CHARACTERS = 200

_MEMBER = re.compile(r"\\?[A-Za-z](?:_\{?\w+\}?)?\s*\\in(?![A-Za-z])\s*(.+)")
_UNKNOWN = re.compile(r"[a-df-hj-zA-DF-HJ-Z](?:_\{?\w+\}?)?|\\(?:theta|alpha|beta|lambda)")
_COMPARISON = re.compile(r"(<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z]))")
_TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_REAL = re.compile(r"-?\d+(?:/\d+|\.\d+(?:e[+-]?\d+)?)?|-?oo")
_STRUCTURE = re.compile(r"[,;<>]|\\[{}]|\\in(?![A-Za-z])|\\[lg]e(?![A-Za-z])")


def structured_form(latex: str, leaf: Leaf) -> str | None:
    """Return the form of a text that is a list, set, tuple, interval or plain inequality.

    Returns:
        None if it is none of these, or a part of it has no form.
    """
    if not _STRUCTURE.search(latex) or "=" in latex:
        return None
    return _form(latex.strip(), leaf)


def bounded_form(form: str) -> str:
    """Return a form, or the digest of a long one."""
    if len(form) <= MAX_FORM_CHARACTERS:
        return form
    return "sha256:" + hashlib.sha256(form.encode(errors="surrogatepass")).hexdigest()


def set_form(forms: set[str]) -> str:
    """Return the form of members in any order; a set of one member is that member."""
    return next(iter(forms)) if len(forms) == 1 else f"{{{','.join(sorted(forms))}}}"


def split_list(text: str, signs: str = ",;") -> list[str]:
    """Return the parts of a text between commas, or other signs, outside brackets."""
    parts, depth, start = list[str](), 0, 0
    for place, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char in signs and depth == 0 and text[place - 1 : place] != "\\":
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]


def _form(latex: str, leaf: Leaf) -> str | None:
    member = _MEMBER.fullmatch(latex)
    if member is not None:
        latex = member[1].strip()
    if _COMPARISON.search(latex):
        return _inequality(latex, leaf)
    parts = split_list(latex)
    if len(parts) > 1:
        forms = _forms(parts, leaf)
        return None if forms is None else set_form(set(forms))
    if latex.startswith(r"\{") and latex.endswith(r"\}") and _is_closed(latex[1:-2] + "}"):
        forms = _forms(split_list(latex[2:-2].strip()), leaf)
        return None if forms is None else set_form(set(forms))
    if latex[:1] in ("(", "[") and latex[-1:] in (")", "]") and _is_closed(latex):
        return _bracketed(latex, leaf)
    return None


def _bracketed(latex: str, leaf: Leaf) -> str | None:
    """Return the form of a tuple or an interval; `(1,2)` may be either and has one form."""
    parts = split_list(latex[1:-1])
    forms = _forms(parts, leaf) if len(parts) > 1 else None
    if forms is None:
        return None
    opening, closing = (latex[0], latex[-1]) if len(forms) == 2 else ("(", ")")
    opening = "(" if forms[0] == "-oo" else opening
    closing = ")" if forms[-1] == "oo" else closing
    return f"{opening}{','.join(forms)}{closing}"


def _forms(parts: list[str], leaf: Leaf) -> list[str] | None:
    forms = [(_form(part, leaf) or leaf(part)) if part else None for part in parts]
    return None if None in forms else [form for form in forms if form is not None]


def _inequality(latex: str, leaf: Leaf) -> str | None:
    """Return the interval of `x < 2` or `1 < x < 2`, for one unknown between numbers."""
    pieces = [piece.strip() for piece in _COMPARISON.split(latex)]
    if pieces[1] in (">", r"\ge"):
        pieces = [_TURNED.get(piece, piece) for piece in reversed(pieces)]
    if len(pieces) == 3:
        is_first = _UNKNOWN.fullmatch(pieces[0]) is not None
        pieces = [r"-\infty", "<", *pieces] if is_first else [*pieces, "<", r"\infty"]
    if len(pieces) != 5 or not _UNKNOWN.fullmatch(pieces[2]) or {">", r"\ge"} & {*pieces[1::2]}:
        return None
    low, high = leaf(pieces[0]), leaf(pieces[4])
    if low is None or high is None or not _is_ordered(low, high):
        return None
    opening, closing = "[" if pieces[1] == r"\le" else "(", "]" if pieces[3] == r"\le" else ")"
    return f"{opening}{low},{high}{closing}"


def _is_ordered(low: str, high: str) -> bool:
    """Return whether forms are those of two real numbers, the smaller one first."""
    if not (_REAL.fullmatch(low) and _REAL.fullmatch(high)):
        return False
    return low == "-oo" or high == "oo" or Fraction(low) < Fraction(high)


def _is_closed(latex: str) -> bool:
    """Return whether the first bracket is closed by the last character, of whatever kind."""
    depth = 0
    for place, char in enumerate(latex):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return place == len(latex) - 1
    return False
