"""Sentences and lines of a text, as spans of characters."""

import re
from collections.abc import Iterator

from livekit import blingfire

from assay_models.preemption import preemption_point

Span = tuple[int, int]

# The segmenter gets this many characters at a time, and the last sentence of them again with what
# follows: it holds the interpreter's lock, and other requests must not wait for long.
SEGMENT_CHARACTERS = 8_192
# BlingFire ends a sentence after these; in the middle of a line they open a name.
_NAME_PREFIX = re.compile(r"(?:^|\s)(?:St|Mt|Ft)\.$")
_PREFIX_CHARACTERS = 4
_SURROGATES = re.compile("[\ud800-\udfff]")


def sentences(text: str, start: int = 0, end: int | None = None) -> Iterator[Span]:
    """Yield start and end of each sentence of `text[start:end]`, in characters, none empty.

    Sentences are found by BlingFire's finite automaton, in linear time for any text. Only white
    space and characters without a glyph lie outside of sentences.
    """
    end = len(text) if end is None else end
    pending: Span | None = None
    for first, last in _raw_sentences(text, start, end):
        if pending is not None and not _ends_with_name_prefix(text, *pending):
            yield pending
            pending = None
        pending = (first if pending is None else pending[0], last)
    if pending is not None:
        yield pending


def _ends_with_name_prefix(text: str, start: int, end: int) -> bool:
    # Only the end is read: a sentence may consist of many pieces.
    return _NAME_PREFIX.search(text[max(start, end - _PREFIX_CHARACTERS) : end]) is not None


def lines(text: str) -> Iterator[Span]:
    """Yield start and end of each line, with its end-of-line characters."""
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, start + len(line)
        start += len(line)


def stripped(text: str, start: int, end: int) -> Span:
    """Return the span without white space at both ends; it is empty if there is nothing else."""
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def _raw_sentences(text: str, start: int, end: int) -> Iterator[Span]:
    while start < end:
        preemption_point()
        stop = min(start + SEGMENT_CHARACTERS, end)
        spans = _segmented(text[start:stop])
        is_last = stop == end or len(spans) < 2
        kept = spans if is_last else spans[:-1]
        for first, last in kept:
            first, last = stripped(text, start + first, start + last)
            if first < last:
                yield first, last
        start = stop if is_last else start + kept[-1][1]


def _segmented(piece: str) -> list[Span]:
    # Half of a surrogate pair is no character; another character in its place keeps the offsets.
    return blingfire.text_to_sentences_with_offsets(_SURROGATES.sub("\ufffd", piece))[1]
