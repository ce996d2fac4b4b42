"""The pieces of a response: its sentences, and the structure around them."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from assay_models.families.nli.sentences import Span, lines, sentences, stripped
from assay_models.families.nli.statements import STOPS, Reason, is_statement

MAX_MARKERS = 3
MIN_PROSE_WORDS = 3
_MARKER = re.compile(r"\s*(?:[-*+>\u2022\u2013]|\(?\d{1,3}[.)]|\(?[a-z]\))\s+")
_FENCE = re.compile(r"\s*(?:>\s*)?(?:```|~~~)")
_HEADING = re.compile(
    r"(?P<open>#{1,6}\s+)(?P<title>.*?)(?P<close>\s*#*)$"
    r"|(?P<bold>(?:\*\*|__))(?P<strong>[^*\n]{1,1000}?)(?P<end>(?:\*\*|__):?)$"
)
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
        is_fence = _FENCE.match(response, *line) is not None
        if block or is_fence:
            block.append(line)
        else:
            yield from _line(response, *line)
        if is_fence and len(block) > 1:
            yield from _block(response, block, block[1:-1])
            block = []
    if block:
        yield from _block(response, block, block[1:])


def _block(response: str, block: Sequence[Span], body: Sequence[Span]) -> Iterator[Piece]:
    """Yield the pieces of a fenced block, whose body is the lines between the fences."""
    if not _is_prose([response[start:end].strip() for start, end in body]):
        yield from _piece(response, block[0][0], block[-1][1], "code")
        return
    for line in block:
        if line in body:
            yield from _line(response, *line)
        else:
            yield from _piece(response, *line, "marker")


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
    heading = _HEADING.match(response, start, end)
    if heading is not None:
        yield from _heading(response, heading)
        return
    for _ in range(MAX_MARKERS):
        marker = _MARKER.match(response, start, end)
        if marker is None:
            break
        yield from _piece(response, start, marker.end(), "marker")
        start = marker.end()
    yield from _sentences(response, *stripped(response, start, end))


def _heading(response: str, heading: re.Match[str]) -> Iterator[Piece]:
    start, end = heading.span("title" if heading["open"] else "strong")
    if not is_statement(response[start:end]):
        yield from _piece(response, *heading.span(), "heading")
        return
    yield from _piece(response, heading.start(), start, "marker")
    yield from _sentences(response, *stripped(response, start, end))
    yield from _piece(response, end, heading.end(), "marker")


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
