"""Evidence in chunks that fit the encoder: whole sentences, and rows of tables."""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from assay_models.families.nli.sentences import Span, sentences, stripped
from assay_models.families.nli.tables import tables
from assay_models.preemption import interruptible

# The share of a window that it may have in common with the one before: a sentence's pronouns need
# the sentence before it.
OVERLAP = 1 / 4
_WORD = re.compile(r"\w+")

Tokenize = Callable[[str], Sequence[Span]]
"""A function that returns the place of each token of a text, in characters."""


class Chunk(NamedTuple):
    """A piece of evidence: the number of its passage, and start and end there, in characters."""

    passage: int
    start: int
    end: int


class _Unit(NamedTuple):
    start: int
    end: int
    tokens: int


@dataclass(slots=True)
class Evidence:
    """The passages of one item, each tokenized once, and their chunks for windows of any width.

    Args:
        passages: by their number in the request.
        tokenize: returns the place of each token of a text.
        max_row_tokens: the most tokens of a table's row that is read as a sentence; longer ones are
            read as they are written.
    """

    passages: dict[int, str]
    tokenize: Tokenize
    max_row_tokens: int
    _tokens: dict[int, Sequence[Span]] = field(default_factory=dict)
    _parts: dict[int, list[tuple[Chunk, Sequence[Span]]]] = field(default_factory=dict)
    _chunks: dict[tuple[Chunk, int], list[Chunk]] = field(default_factory=dict)
    _rows: dict[Chunk, str] = field(default_factory=dict)
    _sentences: dict[tuple[str, ...], list[Chunk]] | None = None

    def count_tokens(self) -> Iterator[int]:
        """Yield the number of tokens of the passages so far, for each passage."""
        return accumulate(len(self._tokens_of(number)) for number in self.passages)

    def chunks(self, exact: int, window: int) -> Iterator[Chunk]:
        """Cut every passage that has more than `exact` tokens into chunks of at most `window`.

        Shorter passages are one chunk, but each row of a table is a chunk of its own. Only white
        space, and the headers of tables, are in no chunk.
        """
        for number in self.passages:
            yield from self._cut(number, exact, window)

    def copied(self, claim: str, exact: int) -> Iterator[Chunk]:
        """Yield the sentences, of at most `exact` tokens, that a claim repeats word for word.

        Beside others of its passage even a copied sentence is a hard claim for a model.
        """
        if self._sentences is None:
            self._sentences = self._by_words()
        for chunk in self._sentences.get(_words(claim), ()):
            if len(self.tokenize(self.text(chunk))) <= exact:
                yield chunk

    def text(self, chunk: Chunk) -> str:
        """Return the text of a chunk; a row of a table is a sentence that has its headers."""
        row = self._rows.get(chunk)
        return self.passages[chunk.passage][chunk.start : chunk.end] if row is None else row

    def _cut(self, number: int, exact: int, window: int) -> Iterator[Chunk]:
        if number not in self._parts:
            self._parts[number] = list(self._split(number))
        for chunk, tokens in self._parts[number]:
            if len(tokens) <= exact:
                yield chunk
            else:
                yield from self._windows(chunk, tokens, window)

    def _split(self, number: int) -> Iterator[tuple[Chunk, Sequence[Span]]]:
        """Yield the rows of a passage's tables, and the text around these, with their tokens."""
        text, reached = self.passages[number], 0
        for table in tables(text):
            yield from self._part(Chunk(number, reached, table.start))
            for row in table.rows:
                chunk = Chunk(number, *stripped(text, row.start, row.end))
                if len(self.tokenize(row.sentence)) <= self.max_row_tokens:
                    self._rows[chunk] = row.sentence
                yield from self._part(chunk)
            reached = table.end
        yield from self._part(Chunk(number, reached, len(text)))

    def _part(self, chunk: Chunk) -> Iterator[tuple[Chunk, Sequence[Span]]]:
        if chunk.end - chunk.start == len(self.passages[chunk.passage]):
            yield chunk, self._tokens_of(chunk.passage)
        elif self.text(chunk).strip():
            yield chunk, self.tokenize(self.text(chunk))

    def _windows(self, chunk: Chunk, tokens: Sequence[Span], window: int) -> list[Chunk]:
        """Cut a part that is too long for one chunk."""
        if (chunk, window) not in self._chunks:
            text = self.passages[chunk.passage][chunk.start : chunk.end]
            self._chunks[chunk, window] = [
                Chunk(chunk.passage, chunk.start + start, chunk.start + end)
                for start, end in cut_text(text, tokens, window, self.tokenize)
            ]
        return self._chunks[chunk, window]

    def _by_words(self) -> dict[tuple[str, ...], list[Chunk]]:
        """Return the sentences by their words, without those that are passages of their own."""
        by_words = defaultdict[tuple[str, ...], list[Chunk]](list)
        for number, text in self.passages.items():
            spans = list(sentences(text))
            for span in interruptible(spans if len(spans) > 1 else ()):
                by_words[_words(text[slice(*span)])].append(Chunk(number, *span))
        return by_words

    def _tokens_of(self, number: int) -> Sequence[Span]:
        if number not in self._tokens:
            self._tokens[number] = self.tokenize(self.passages[number])
        return self._tokens[number]


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


def cut_text(text: str, tokens: Sequence[Span], window: int, tokenize: Tokenize) -> list[Span]:
    """Cut a text into spans of at most `window` tokens each, whole sentences where these fit.

    The last sentences of a span, up to a quarter of the window, open the next one too. A sentence
    longer than the window is cut into windows that overlap by a quarter.

    Args:
        text: to be cut.
        tokens: the places of its tokens.
        window: the maximal number of tokens.
        tokenize: tokenizes a span again: alone it may have more tokens.
    """
    units = [unit for start, end in sentences(text) for unit in _units(tokens, start, end, window)]
    spans = _packed(units, window, int(window * OVERLAP))
    return [fitting for span in spans for fitting in _fitting(text, span, window, tokenize)]


def _units(tokens: Sequence[Span], start: int, end: int, window: int) -> Iterator[_Unit]:
    """Yield the sentence, or its windows."""
    low = bisect_left(tokens, start, key=lambda token: token[0])
    high = bisect_left(tokens, end, key=lambda token: token[0])
    if high - low <= window:
        yield _Unit(start, end, high - low)
        return
    step = max(1, window - int(window * OVERLAP))
    for first in range(low, high, step):
        last = min(first + window, high)
        begin = start if first == low else tokens[first][0]
        yield _Unit(begin, end if last == high else tokens[last][0], last - first)
        if last == high:
            return


def _packed(units: Sequence[_Unit], window: int, overlap: int) -> Iterator[Span]:
    current: list[_Unit] = []
    tokens = 0
    for unit in interruptible(units):
        if current and tokens + unit.tokens > window:
            yield current[0].start, current[-1].end
            current = _carried_over(current, min(overlap, window - unit.tokens))
            tokens = sum(other.tokens for other in current)
        current.append(unit)
        tokens += unit.tokens
    if current:
        yield current[0].start, current[-1].end


def _carried_over(units: Sequence[_Unit], room: int) -> list[_Unit]:
    """Return the last units that fit into the overlap with the next span."""
    kept: list[_Unit] = []
    for unit in reversed(units):
        room -= unit.tokens
        if room < 0:
            break
        kept.append(unit)
    return kept[::-1]


def _fitting(text: str, span: Span, window: int, tokenize: Tokenize) -> Iterator[Span]:
    start, end = span
    tokens = tokenize(text[start:end])
    middle = start + tokens[len(tokens) // 2][0] if tokens else end
    if len(tokens) <= window or not start < middle < end:
        yield span
        return
    yield from _fitting(text, (start, middle), window, tokenize)
    yield from _fitting(text, (middle, end), window, tokenize)
