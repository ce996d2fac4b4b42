"""Claims of a response, and phi: one number for how well evidence supports them.

The formula is that of "What makes a medical checker trainable?" (arXiv 2605.25988).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from unicodedata import east_asian_width

from assay_models.families.nli.sentences import Span, lines, sentences, stripped
from assay_models.items import LABELS, Label

Reason = Literal[
    "code", "heading", "marker", "no_letters", "no_words", "question", "too_short", "url"
]
WEIGHTS: Mapping[Label, float] = {
    "entailment": 1.0,
    "neutral": 0.0,
    "contradiction": -1.5,
    "not_entailment": 0.0,
}
"""The weight s of each label in phi (arXiv 2605.25988); with two labels none is contradicted."""

MIN_CLAIM_CHARACTERS = 16
# A Chinese, Japanese or Korean character carries about as much as three Latin letters.
WIDE_CHARACTER_LENGTH = 3
MAX_WORD_LETTERS = 64
MAX_MARKERS = 3
_MARKER = re.compile(r"\s*(?:[-*+>\u2022\u2013]|\(?\d{1,3}[.)]|\(?[a-z]\))\s+")
_FENCE = re.compile(r"\s*(?:>\s*)?(?:```|~~~)")
_HEADING = re.compile(r"\s{0,3}(?:#{1,6}\s|\*\*[^*\n]{1,200}\*\*:?\s*$)")
_QUESTION_MARKS = "?\uff1f\u061f"
_CLOSING = "\"'\u201d\u2019)]\u300d\u300f\uff09*_!\uff01"
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim and its place in the response, in characters."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DroppedPiece:
    """A piece of the response that is no claim, its place in characters, and the reason."""

    start: int
    end: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class ClaimSplit:
    """The claims of a response, and the pieces that are none, each in order of their places."""

    claims: tuple[Claim, ...]
    dropped: tuple[DroppedPiece, ...]


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """The label of one claim under the evidence, and the model's confidence in it (0 to 1)."""

    label: Label
    confidence: float


@dataclass(frozen=True, slots=True)
class Phi:
    """The mean weighted confidence, as the formula gives it and cut to [-1, 1]."""

    unclipped: float
    clipped: float


def split_claims(response: str) -> ClaimSplit:
    """Split a response into claims, one for each sentence.

    A sentence ends at a line break, and at the ends that `sentences` finds. List and quotation
    markers are removed. The following are no claims: lines in a fenced block (`code`), headings,
    questions, and pieces without a letter (`no_letters`), with nothing but links (`url`), without a
    word of at most 64 letters (`no_words`) or of 15 characters or fewer (`too_short`), where a wide
    character counts as three. Only white space lies outside of claims and dropped pieces.
    """
    claims: list[Claim] = []
    dropped: list[DroppedPiece] = []
    for start, end, reason in _pieces(response):
        if reason is None:
            claims.append(Claim(response[start:end], start, end))
        else:
            dropped.append(DroppedPiece(start, end, reason))
    return ClaimSplit(tuple(claims), tuple(dropped))


def phi(verdicts: Sequence[ClaimVerdict], weights: Mapping[Label, float] = WEIGHTS) -> Phi:
    """Compute the mean of s * p over claims: p is the confidence, s the weight of the label.

    The weights are +1 for entailed, 0 for neutral and -1.5 for contradicted claims.

    Args:
        verdicts: at least one; without claims there is no phi, which is not the same as phi = 0.
        weights: s of each label.
    """
    total = sum(weights[verdict.label] * verdict.confidence for verdict in verdicts)
    mean = total / len(verdicts)
    return Phi(mean, min(1.0, max(-1.0, mean)))


def label_shares(
    verdicts: Sequence[ClaimVerdict], labels: Sequence[Label] = LABELS
) -> dict[Label, float]:
    """Return the share of claims under each label."""
    given = [verdict.label for verdict in verdicts]
    return {label: given.count(label) / len(given) for label in labels}


def has_content(text: str) -> bool:
    """Return whether there is a letter or a digit in a text."""
    return any(character.isalnum() for character in text)


Piece = tuple[int, int, Reason | None]


def _pieces(response: str) -> Iterator[Piece]:
    """Yield the pieces of a response in order, with the reason for a piece that is no claim."""
    block: int | None = None
    for start, end in lines(response):
        fence = _FENCE.match(response, start, end) is not None
        if block is not None:
            if fence:
                yield (*stripped(response, block, end), "code")
                block = None
        elif fence:
            block = start
        else:
            yield from _line_pieces(response, start, end)
    if block is not None:
        yield (*stripped(response, block, len(response)), "code")


def _line_pieces(response: str, start: int, end: int) -> Iterator[Piece]:
    place = stripped(response, start, end)
    if place[0] == place[1]:
        return
    if _HEADING.match(response[start : place[1]]):
        yield (*place, "heading")
        return
    start = place[0]
    for _ in range(MAX_MARKERS):
        marker = _MARKER.match(response, start, place[1])
        if marker is None:
            break
        yield (*stripped(response, start, marker.end()), "marker")
        start = marker.end()
    yield from _sentence_pieces(response, *stripped(response, start, place[1]))


def _sentence_pieces(response: str, start: int, end: int) -> Iterator[Piece]:
    for first, last in sentences(response, start, end):
        if place := _remainder(response, start, first):
            yield (*place, "no_letters")
        yield first, last, _drop_reason(response[first:last])
        start = last
    if place := _remainder(response, start, end):
        yield (*place, "no_letters")


def _remainder(response: str, start: int, end: int) -> Span | None:
    place = stripped(response, start, end)
    return place if place[0] < place[1] else None


def _drop_reason(text: str) -> Reason | None:
    words = [len(word) for word in _LETTERS.findall(text)]
    if not words:
        return "no_letters"
    if not _LETTERS.search(_URL.sub("", text)):
        return "url"
    if min(words) > MAX_WORD_LETTERS and text.isascii():
        return "no_words"
    if text.rstrip(_CLOSING).endswith(tuple(_QUESTION_MARKS)):
        return "question"
    return "too_short" if _effective_length(text) < MIN_CLAIM_CHARACTERS else None


def _effective_length(text: str) -> int:
    if len(text) >= MIN_CLAIM_CHARACTERS:
        return len(text)
    return sum(WIDE_CHARACTER_LENGTH if east_asian_width(letter) in "WF" else 1 for letter in text)
