"""The pieces of a response: its sentences, and the structure around them."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from assay_models.families.nli.sentences import Span, lines, sentences, stripped
from assay_models.families.nli.statements import STOPS, Reason, is_statement
from assay_models.preemption import preemption_point

MAX_MARKERS = 3
MIN_PROSE_WORDS = 3
_MARKER = re.compile(r"\s*(?:[-*+>\u2022\u2013]|\(?\d{1,3}[.)]|\(?[a-z]\))\s+")
_FENCE = re.compile(r"\s*(?:>\s*)?(?:```|~~~)")
_HEADING = re.compile(r"#{1,6}\s+")
_BOLD = re.compile(r"(?:\*\*|__)(?P<title>[^*\n]{1,1000}?)(?:\*\*|__):?$")
_CODE = re.compile(r"[{}<>=;|\\$_@#~`]|\w\(|::|->|^\s*(?://|>>>)")
_WORD = re.compile(r"[^\W\d_]+")


class Piece(NamedTuple):
    """A piece of a response, in characters; `reason` is None for a sentence."""

    start: int
    end: int
    reason: Reason | None


def pieces(response: str) -> Iterator[Piece]:
    """Yield the pieces of a response in order; only white space lies between them.

    A heading, or a line that is bold as a whole, is read like any other line if it is a sentence.
    So are the lines of a fenced block that holds prose.
    """
    block: list[Span] = []
    for line in lines(response):
        preemption_point()
        is_fence = _FENCE.match(response, *line) is not None
        if block or is_fence:
            block.append(line)
        else:
            yield from _line(response, *line)
        if is_fence and len(block) > 1:
            yield from _block(response, block, is_closed=True)
            block = []
    if block:
        yield from _block(response, block, is_closed=False)


def _block(response: str, block: Sequence[Span], *, is_closed: bool) -> Iterator[Piece]:
    """Yield the pieces of a fenced block, whose body is the lines between the fences."""
    body = block[1:-1] if is_closed else block[1:]
    if not _is_prose([response[start:end].strip() for start, end in body]):
        yield from _piece(response, block[0][0], block[-1][1], "code")
        return
    yield from _piece(response, *block[0], "marker")
    for line in body:
        yield from _line(response, *line)
    if is_closed:
        yield from _piece(response, *block[-1], "marker")


def _is_prose(block: Sequence[str]) -> bool:
    """Return whether half of the lines are words without code, and a sentence is among them."""
    written = [line for line in block if line]
    prose = [
        line
        for line in written
        if not _CODE.search(line) and len(_WORD.findall(line)) >= MIN_PROSE_WORDS
    ]
    has_sentence = any(line.rstrip("\"'\u201d\u2019)]").endswith(STOPS) for line in prose)
    return has_sentence and 2 * len(prose) >= len(written)


def _line(response: str, start: int, end: int) -> Iterator[Piece]:
    start, end = stripped(response, start, end)
    if start == end:
        return
    title = _title(response, start, end)
    if title is not None:
        yield from _heading(response, start, end, title)
        return
    for _ in range(MAX_MARKERS):
        marker = _MARKER.match(response, start, end)
        if marker is None:
            break
        yield from _piece(response, start, marker.end(), "marker")
        start = marker.end()
    yield from _sentences(response, *stripped(response, start, end))


def _title(response: str, start: int, end: int) -> Span | None:
    """Return the place of the words of a line that is a heading, or bold as a whole."""
    hashes = _HEADING.match(response, start, end)
    if hashes is not None:
        words = response[hashes.end() : end].rstrip("#").rstrip()
        return hashes.end(), hashes.end() + len(words)
    bold = _BOLD.match(response, start, end)
    return None if bold is None else bold.span("title")


def _heading(response: str, start: int, end: int, title: Span) -> Iterator[Piece]:
    if not is_statement(response[slice(*title)]):
        yield from _piece(response, start, end, "heading")
        return
    yield from _piece(response, start, title[0], "marker")
    yield from _sentences(response, *stripped(response, *title))
    yield from _piece(response, title[1], end, "marker")


def _sentences(response: str, start: int, end: int) -> Iterator[Piece]:
    for first, last in sentences(response, start, end):
        yield from _piece(response, start, first, "no_letters")
        yield Piece(first, last, None)
        start = last
    yield from _piece(response, start, end, "no_letters")


def _piece(response: str, start: int, end: int, reason: Reason) -> Iterator[Piece]:
    start, end = stripped(response, start, end)
    if start < end:
        yield Piece(start, end, reason)
