"""Canonical forms of answers: two answers are equal if and only if their forms are.

A form is a function of one answer alone, so equality is a partition: symmetric, transitive, and
independent of the order in which answers are compared. A tolerance on pairs would not be (0.996 and
1.004 may both be close to 1 and not to each other), so numbers are rounded one by one.
"""

import re
import string
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple, get_args

from assay_models.answers.bounds import MAX_CHARACTERS, broken_bound
from assay_models.answers.cleaning import clean
from assay_models.answers.latex import as_latex
from assay_models.answers.numbers import (
    TooLarge,
    exact_form,
    read_number,
    rounded_form,
    split_mark,
)
from assay_models.answers.structures import bounded_form, structured_form

AnswerType = Literal["math", "number", "mcq", "short", "free"]
ANSWER_TYPES: tuple[AnswerType, ...] = get_args(AnswerType)

VERSION = 1
MAX_ANSWER_CHARACTERS = 20_000
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "“”\u2018\u2019«»…\u2013—", " "))
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s+)?[(\[]?([A-Za-z])(?:[)\].:,].*|\s*)|([A-HJ-Z])\s.*", re.DOTALL
)
_CHOICES = re.compile(r"[(\[]?[A-Z][)\]]?(?:\s*(?:,|and|&|;)\s*[(\[]?[A-Z][)\]]?)+")
_WORDS = re.compile(r"[^\W\d_]{4,}|(?:yes|no|odd|all|none)|[^\W\d_]{2,}(?:[ -][^\W\d_]{2,})+", re.I)
_NAME = re.compile(r"(?:\\[A-Za-z]+|[A-Za-z])(?:_\{?\w+\}?)?\s*")
_FUNCTION = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?\s*\([a-z](?:, ?[a-z])*\)\s*")
_QUANTITY = re.compile(
    r"(?:[A-Z0-9|:/(){}\s_]"
    r"|\\(?:frac|angle|triangle|overline|measuredangle|operatorname|widehat|cdot))*[A-Z]"
    r"[A-Z0-9|:/(){}\s_]*"
)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_INFINITE = re.compile(r"\+?(-?)\s*\\infty")
_LETTER = re.compile(r"\(?([A-Z])\)?")
_TIME = re.compile(r"(\d{1,2}):([0-5]\d)\s*(?:\\text\{)?\s*(?:([ap])\.?\s*m\.?)?\s*\}?", re.I)
_COMMA = re.compile(r"(\d),(\d{1,2})(?!\d|,)")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox)\s*\{([^{}\\]+)\}")


class Form(NamedTuple):
    """The canonical form of an answer, and the form without the marks beside it (degrees, percent,
    units); None where it has none."""

    exact: str
    bare: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A mathematical text, in LaTeX, whose form a worker computes, and the mark beside it."""

    text: str
    mark: str = ""

    def form(self, body: str) -> Form:
        """Return the form of the answer, from the worker's form of the text."""
        return Form(f"{body}|{self.mark}", body) if self.mark else Form(body)


class Unreadable(Exception):
    """A text that is no answer of its type; `is_limit` where it may be one, beyond the bounds."""

    def __init__(self, reason: str, *, is_limit: bool = False) -> None:
        super().__init__(reason)
        self.is_limit = is_limit


def read_answer(text: str, kind: AnswerType, digits: int | None = None) -> Form | Query:
    """Return the canonical form of an answer, or the query of a worker that computes it.

    Args:
        text: the answer, as it stands in a response.
        kind: the type of the answer; `free` has no forms.
        digits: the significant digits to which numbers of type `number` are rounded; None for
            exact values.

    Raises:
        Unreadable: it is no answer of that type, or exceeds a bound.
    """
    if len(text) > MAX_ANSWER_CHARACTERS:
        raise Unreadable(f"it has more than {MAX_ANSWER_CHARACTERS} characters", is_limit=True)
    if kind == "mcq":
        return Form(choice_form(text))
    if kind == "short":
        return Form(bounded_form(f"text:{normalised(text)}"))
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"it has more than {MAX_CHARACTERS} characters", is_limit=True)
    try:
        return _number(text, digits) if kind == "number" else _mathematics(text)
    except TooLarge:
        raise Unreadable("it has too many digits", is_limit=True) from None


def are_equal(answer: Form, gold: Form) -> bool:
    """Return whether two forms are equal."""
    return answer.exact == gold.exact


def are_equal_without_marks(answer: Form, gold: Form) -> bool:
    """Return whether two forms are equal once the marks of one are removed; the other has none.

    Unlike `are_equal` this is no partition: `10%` equals 10 by it, and 1/10 by its form.
    """
    if (answer.bare is None) == (gold.bare is None):
        return False
    return (answer.bare or answer.exact) == (gold.bare or gold.exact)


def normalised(text: str) -> str:
    """Return a short text for comparison: NFKC, casefolded, without articles and punctuation.

    The steps are those of SQuAD's exact match (Rajpurkar et al. 2016), and Unicode's. A text of
    which nothing would be left keeps its punctuation.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    plain = " ".join(_ARTICLES.sub(" ", folded.translate(_PUNCTUATION)).split())
    kept = plain or " ".join(folded.split())
    if not kept:
        raise Unreadable("it is empty")
    return kept


def choice_form(text: str) -> str:
    """Return the letter of a multiple choice, or its letters in order.

    Raises:
        Unreadable: no letter opens the text.
    """
    cleaned = clean(_TEXT.sub(r"\1", text))
    if _CHOICES.fullmatch(cleaned):
        return "choice:" + ",".join(sorted(set(re.findall(r"\b[A-Z]\b", cleaned))))
    match = _CHOICE.fullmatch(cleaned)
    if match is None:
        raise Unreadable("no letter opens it")
    return "choice:" + (match[1] or match[2]).upper()


def _number(text: str, digits: int | None) -> Form:
    cleaned = clean(text)
    for part in (cleaned, cleaned.rpartition("=")[2], _COMMA.sub(r"\1.\2", cleaned)):
        base, mark = split_mark(_without_name(part.strip()), is_number=True)
        value = read_number(base)
        if value is not None:
            return _marked(value, mark, digits)
    raise Unreadable("it is no number")


def _mathematics(text: str) -> Form | Query:
    cleaned = _without_name(clean(text))
    if not cleaned:
        raise Unreadable("it is empty")
    base, mark = split_mark(cleaned, is_number=False)
    value = read_number(base)
    if value is not None:
        return _marked(value, mark, None)
    words = " ".join(_TEXT.sub(r"\1", cleaned).split())
    if _WORDS.fullmatch(words):
        return Form(bounded_form(f"text:{normalised(words)}"))
    letter = _LETTER.fullmatch(words)
    if letter is not None:
        return Form(f"letter:{letter[1]}")
    time = _TIME.fullmatch(cleaned)
    if time is not None and (time[3] or time[2][0] == "0"):
        return Form(f"time:{int(time[1])}:{time[2]}{(time[3] or '').lower()}")
    bound = broken_bound(base)
    if bound is not None:
        raise Unreadable(bound, is_limit=True)
    latex = as_latex(base)
    form = structured_form(latex, _plain_form)
    if form is None:
        return Query(latex, mark)
    form = bounded_form(form)
    return Form(f"{form}|{mark}", form) if mark else Form(form)


def _plain_form(latex: str) -> str | None:
    """Return the form of a part that needs no worker: a plain number, or infinity."""
    infinite = _INFINITE.fullmatch(latex)
    if infinite is not None:
        return f"{infinite[1]}oo"
    value = read_number(latex)
    return None if value is None else exact_form(value)


def _marked(value: Fraction, mark: str, digits: int | None) -> Form:
    def form(number: Fraction) -> str:
        return bounded_form(exact_form(number) if digits is None else rounded_form(number, digits))

    if mark == "%":
        return Form(form(value / 100), form(value))
    return Form(f"{form(value)}|{mark}", form(value)) if mark else Form(form(value))


def _without_name(text: str) -> str:
    r"""Return what stands behind `x =` or `f(x) =`, where it is a number or a function's value.

    A quantity of geometry (`AB`, `\\angle ABC`, a ratio of lengths) is a name as well.
    """
    name, equals, value = text.partition("=")
    value = value.strip()
    if not equals or "=" in value or name.rstrip()[-1:] in ("<", ">", "!", "\\", ":"):
        return text
    if _FUNCTION.fullmatch(name):
        return value
    is_number = not re.search("[A-Za-z]", _COMMAND.sub("", value))
    if _QUANTITY.fullmatch(name) and is_number:
        return value
    is_plain = read_number(split_mark(value, is_number=False).base) is not None
    return value if _NAME.fullmatch(name) and is_plain else text
