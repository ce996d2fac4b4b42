"""Evidence in chunks that fit the encoder, cut at the ends of sentences."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from assay_models.families.nli.sentences import Span, sentences

# The share of a window that it may have in common with the one before: a sentence's pronouns need
# the sentence before it.
OVERLAP = 1 / 4

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
    """

    passages: dict[int, str]
    tokenize: Tokenize
    _tokens: dict[int, Sequence[Span]] = field(default_factory=dict)
    _chunks: dict[tuple[int, int], list[Chunk]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """The number of tokens of all passages together."""
        return sum(len(self._tokens_of(number)) for number in self.passages)

    def chunks(self, exact: int, window: int) -> list[Chunk]:
        """Cut every passage that has more than `exact` tokens into chunks of at most `window`.

        Shorter passages are one chunk. Only white space is in no chunk.
        """
        return [chunk for number in self.passages for chunk in self._cut(number, exact, window)]

    def text(self, chunk: Chunk) -> str:
        """Return the text of a chunk."""
        return self.passages[chunk.passage][chunk.start : chunk.end]

    def _cut(self, number: int, exact: int, window: int) -> list[Chunk]:
        tokens = self._tokens_of(number)
        if len(tokens) <= exact:
            return [Chunk(number, 0, len(self.passages[number]))]
        chunks = self._chunks.get((number, window))
        if chunks is None:
            spans = cut_text(self.passages[number], tokens, window, self.tokenize)
            chunks = self._chunks[number, window] = [Chunk(number, *span) for span in spans]
        return chunks

    def _tokens_of(self, number: int) -> Sequence[Span]:
        if number not in self._tokens:
            self._tokens[number] = self.tokenize(self.passages[number])
        return self._tokens[number]


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
    for unit in units:
        if current and sum(other.tokens for other in current) + unit.tokens > window:
            yield current[0].start, current[-1].end
            current = _carried_over(current, min(overlap, window - unit.tokens))
        current.append(unit)
    if current:
        yield current[0].start, current[-1].end


def _carried_over(units: Sequence[_Unit], room: int) -> list[_Unit]:
    """Return the last units that fit into the overlap with the next span."""
    kept: list[_Unit] = []
    for unit in reversed(units):
        room -= unit.tokens
        if room < 0:
            break
        kept.insert(0, unit)
    return kept


def _fitting(text: str, span: Span, window: int, tokenize: Tokenize) -> Iterator[Span]:
    start, end = span
    tokens = tokenize(text[start:end])
    middle = start + tokens[len(tokens) // 2][0] if tokens else end
    if len(tokens) <= window or not start < middle < end:
        yield span
        return
    yield from _fitting(text, (start, middle), window, tokenize)
    yield from _fitting(text, (middle, end), window, tokenize)
