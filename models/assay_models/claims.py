"""Claims of a response, and phi: one number for how well evidence bears them out.

The formula is that of "What makes a medical checker trainable?" (arXiv 2605.25988).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Label = Literal["entailment", "neutral", "contradiction"]
LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")
WEIGHTS: Mapping[Label, float] = {"entailment": 1.0, "neutral": 0.0, "contradiction": -1.5}
SHORTEST_CLAIM = 16
_LIST_MARKER = re.compile(r"\s*(?:[-*\u2022\u2013]|\d{1,3}[.)])\s+")
# The look-behind keeps a long run of marks from being tried once for each of its characters.
_END = re.compile(
    r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019)\]]*+(?=\s|$)"
    r"|(?<![\u3002\uff01\uff1f\uff61])[\u3002\uff01\uff1f\uff61]++[\u201d\u2019\u300d\u300f\uff09]*+"
)
_LAST_WORD = re.compile(r"[\w.]+$")
_LONGEST_ABBREVIATION = 8
_ABBREVIATIONS = frozenset(
    {"al", "approx", "cf", "dr", "e.g", "fig", "i.e", "mr", "mrs", "ms", "prof", "st", "vs"}
)


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim and its place in the response, in characters."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Split:
    """The claims of a response, and how many pieces were too short to be one."""

    claims: tuple[Claim, ...]
    dropped: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evidence says of one claim, and how sure the model is of it (0 to 1)."""

    label: Label
    confidence: float


@dataclass(frozen=True, slots=True)
class Phi:
    """The mean weighted confidence, as the formula gives it and cut to [-1, 1]."""

    unclipped: float
    clipped: float


def split_claims(response: str) -> Split:
    """A response as claims, one for each sentence.

    A sentence ends at a line break, after Latin end punctuation before a space, and after CJK end
    punctuation; common abbreviations do not end one. List markers are taken off. Pieces of 15
    characters or fewer are dropped and counted.
    """
    pieces = [
        Claim(response[start:end], start, end)
        for first, last in _lines(response)
        for start, end in _sentences(response, first, last)
    ]
    claims = tuple(piece for piece in pieces if len(piece.text) >= SHORTEST_CLAIM)
    return Split(claims, len(pieces) - len(claims))


def phi(verdicts: Sequence[Verdict]) -> Phi:
    """The mean of s * p over claims: s = +1 entailed, 0 neutral, -1.5 contradicted; p confidence.

    Args:
        verdicts: at least one; no claims have no phi, which is not the same as phi = 0.
    """
    total = sum(WEIGHTS[verdict.label] * verdict.confidence for verdict in verdicts)
    mean = total / len(verdicts)
    return Phi(mean, min(1.0, max(-1.0, mean)))


def shares(verdicts: Sequence[Verdict]) -> dict[Label, float]:
    """The share of claims under each label."""
    found = [verdict.label for verdict in verdicts]
    return {label: found.count(label) / len(found) for label in LABELS}


def _lines(response: str) -> Iterator[tuple[int, int]]:
    """Start and end of each line, after its list marker."""
    start = 0
    for line in response.splitlines(keepends=True):
        marker = _LIST_MARKER.match(line)
        yield start + (marker.end() if marker else 0), start + len(line)
        start += len(line)


def _sentences(response: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Start and end of each sentence of one line, without the white space around it."""
    start = first
    for mark in _END.finditer(response, first, last):
        if not _is_abbreviation(response, start, mark.start()):
            yield from _stripped(response, start, mark.end())
            start = mark.end()
    yield from _stripped(response, start, last)


def _stripped(response: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = response[start:end]
    if text := piece.strip():
        start += len(piece) - len(piece.lstrip())
        yield start, start + len(text)


def _is_abbreviation(response: str, start: int, mark: int) -> bool:
    if response[mark] != ".":
        return False
    window = response[max(start, mark - _LONGEST_ABBREVIATION) : mark]
    word = _LAST_WORD.search(window)
    return word is not None and word.group().lower() in _ABBREVIATIONS
