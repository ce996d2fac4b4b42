"""Sentences and lines of a text, as places in it."""

import re
from collections.abc import Iterator

from livekit import blingfire

Span = tuple[int, int]

# The segmenter sees so many characters at a time, and the last sentence of them again with what
# follows: it holds the interpreter's lock, and other requests want to get on.
REACH = 8_192
# BlingFire ends a sentence behind these; in the middle of a line they open a name.
_SAINTS = re.compile(r"(?:^|\s)(?:St|Mt|Ft)\.$")
_HALVES = re.compile("[\ud800-\udfff]")


def sentences(text: str, start: int = 0, end: int | None = None) -> Iterator[Span]:
    """Start and end of each sentence of `text[start:end]`, in characters, none empty.

    By BlingFire's finite automaton, in time that grows as the length does, whatever the text.
    Outside of what it calls sentences lies nothing but white space and characters without a shape.
    """
    end = len(text) if end is None else end
    pending: Span | None = None
    for first, last in _found(text, start, end):
        if pending is not None and not _SAINTS.search(text[pending[0] : pending[1]]):
            yield pending
            pending = None
        pending = (first if pending is None else pending[0], last)
    if pending is not None:
        yield pending


def lines(text: str) -> Iterator[Span]:
    """Start and end of each line, its end-of-line characters among it."""
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, start + len(line)
        start += len(line)


def stripped(text: str, start: int, end: int) -> Span:
    """The place without the white space at both ends; empty where there is nothing else."""
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def _found(text: str, start: int, end: int) -> Iterator[Span]:
    while start < end:
        stop = min(start + REACH, end)
        found = _segmented(text[start:stop])
        whole = stop == end
        kept = found if whole or len(found) < 2 else found[:-1]
        for first, last in kept:
            first, last = stripped(text, start + first, start + last)
            if first < last:
                yield first, last
        start = stop if whole or len(found) < 2 else start + kept[-1][1]


def _segmented(piece: str) -> list[Span]:
    # Half of a surrogate pair is no character; any other in its place keeps the places right.
    return blingfire.text_to_sentences_with_offsets(_HALVES.sub("\ufffd", piece))[1]
