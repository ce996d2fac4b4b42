"""Evidence in pieces that fit the encoder, cut where sentences end."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from assay_models.families.nli.sentences import Span, sentences

# Of a window that follows another, so much may be what both have: a sentence's pronouns want the
# one before it.
OVERLAP = 1 / 4

Places = Callable[[str], Sequence[Span]]


class Chunk(NamedTuple):
    """A piece of evidence: of which passage, and from where to where in it, in characters."""

    passage: int
    start: int
    end: int


class _Unit(NamedTuple):
    start: int
    end: int
    tokens: int


@dataclass(slots=True)
class Evidence:
    """The passages of one item, each tokenised once, and their chunks for windows of any width.

    Args:
        passages: by their number in the request.
        places: where each token of a text lies in it.
    """

    passages: dict[int, str]
    places: Places
    _tokens: dict[int, Sequence[Span]] = field(default_factory=dict)
    _chunks: dict[tuple[int, int], list[Chunk]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Of all passages together."""
        return sum(len(self._places_in(number)) for number in self.passages)

    def chunks(self, exact: int, window: int) -> list[Chunk]:
        """Every passage, whole where it has at most `exact` tokens, else in chunks of at most
        `window`; nothing but white space is in no chunk."""
        return [chunk for number in self.passages for chunk in self._of(number, exact, window)]

    def text(self, chunk: Chunk) -> str:
        """What a chunk says."""
        return self.passages[chunk.passage][chunk.start : chunk.end]

    def _of(self, number: int, exact: int, window: int) -> list[Chunk]:
        places = self._places_in(number)
        if len(places) <= exact:
            return [Chunk(number, 0, len(self.passages[number]))]
        known = self._chunks.get((number, window))
        if known is None:
            cut = cut_text(self.passages[number], places, window, self.places)
            known = self._chunks[number, window] = [Chunk(number, *span) for span in cut]
        return known

    def _places_in(self, number: int) -> Sequence[Span]:
        if number not in self._tokens:
            self._tokens[number] = self.places(self.passages[number])
        return self._tokens[number]


def cut_text(text: str, places: Sequence[Span], window: int, places_of: Places) -> list[Span]:
    """Spans of a text that have at most `window` tokens each, whole sentences where these fit.

    The last sentences of a span, up to a quarter of the window, open the next one too. A sentence
    longer than the window is cut into windows that overlap by a quarter.

    Args:
        text: to be cut.
        places: of its tokens.
        window: tokens.
        places_of: finds the tokens of a span again: alone it may have more of them.
    """
    units = [unit for start, end in sentences(text) for unit in _units(places, start, end, window)]
    spans = _packed(units, window, int(window * OVERLAP))
    return [fitting for span in spans for fitting in _fitting(text, span, window, places_of)]


def _units(places: Sequence[Span], start: int, end: int, window: int) -> Iterator[_Unit]:
    """The sentence, or its windows."""
    low = bisect_left(places, start, key=lambda place: place[0])
    high = bisect_left(places, end, key=lambda place: place[0])
    if high - low <= window:
        yield _Unit(start, end, high - low)
        return
    step = max(1, window - int(window * OVERLAP))
    for first in range(low, high, step):
        last = min(first + window, high)
        begin = start if first == low else places[first][0]
        yield _Unit(begin, end if last == high else places[last][0], last - first)
        if last == high:
            return


def _packed(units: Sequence[_Unit], window: int, overlap: int) -> Iterator[Span]:
    held: list[_Unit] = []
    for unit in units:
        if held and sum(one.tokens for one in held) + unit.tokens > window:
            yield held[0].start, held[-1].end
            held = _carried(held, min(overlap, window - unit.tokens))
        held.append(unit)
    if held:
        yield held[0].start, held[-1].end


def _carried(held: Sequence[_Unit], room: int) -> list[_Unit]:
    """The last units that have room in the next span."""
    kept: list[_Unit] = []
    for unit in reversed(held):
        room -= unit.tokens
        if room < 0:
            break
        kept.insert(0, unit)
    return kept


def _fitting(text: str, span: Span, window: int, places_of: Places) -> Iterator[Span]:
    start, end = span
    places = places_of(text[start:end])
    middle = start + places[len(places) // 2][0] if places else end
    if len(places) <= window or not start < middle < end:
        yield span
        return
    yield from _fitting(text, (start, middle), window, places_of)
    yield from _fitting(text, (middle, end), window, places_of)
