"""Truncation, and texts so long that they are tokenized in pieces.

A tokenizer's call cannot be interrupted, and a text of megabytes takes it seconds.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from assay_models.base import ItemError, Truncation
from assay_models.preemption import preemption_point

MAX_CHARACTERS = 32_768
"""A text up to this length is tokenized as a whole."""
PIECE_CHARACTERS = 16_384
# Tokens between those that are kept and a place where the text is cut: a cut that is no boundary of
# words changes the tokens beside it.
MARGIN_TOKENS = 256
# Before white space between two words every tokenizer of words ends a token.
_LAST_BOUNDARY = re.compile(r".*(?<=\w)(?=[ \n]\w)", re.DOTALL)


class ShortenedText(NamedTuple):
    """A text, and the number of tokens that it had between its two ends besides."""

    text: str
    dropped: int = 0


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield a text in pieces, each with its place in characters; a short text is one piece.

    Pieces end between words, except in a run of `PIECE_CHARACTERS` without such a place.
    """
    start, end = 0, len(text)
    while end - start > (PIECE_CHARACTERS if start else MAX_CHARACTERS):
        last = _LAST_BOUNDARY.match(text, start, start + PIECE_CHARACTERS)
        stop = start + PIECE_CHARACTERS
        if last is not None and last.end() > start:
            stop = last.end()
        yield start, text[start:stop]
        preemption_point()
        start = stop
    yield start, text[start:]


def shorten(
    text: str, backend: Tokenizer, *, max_tokens: int, truncation: Truncation
) -> ShortenedText:
    """Return a text without tokens that truncation would cut from the middle of a long one.

    Args:
        text: the text; a short one is returned as it is.
        backend: its tokenizer.
        max_tokens: the most tokens that are kept of either end.
        truncation: with `error` the text is read until it is too long.

    Raises:
        ItemError: the text is far too long, and must not be truncated.
    """
    preemption_point()
    if len(text) <= MAX_CHARACTERS:
        return ShortenedText(text)
    if truncation == "error":
        parts, counts = _first(backend, (part for _, part in pieces(text)), max_tokens)
        if len("".join(parts)) < len(text):
            raise too_long(sum(counts), max_tokens, " or more")
        return ShortenedText(text)
    parts = [part for _, part in pieces(text)]
    head, _ = _first(backend, parts, max_tokens)
    tail, _ = _first(backend, reversed(parts), max_tokens)
    between = parts[len(head) : len(parts) - len(tail)]
    if not between:
        return ShortenedText(text)
    dropped = sum(_count(backend, part) for part in between)
    return ShortenedText("".join([*head, *reversed(tail)]), dropped)


def _first(
    backend: Tokenizer, parts: Iterable[str], max_tokens: int
) -> tuple[list[str], list[int]]:
    """Return the parts with the first `max_tokens` tokens and the margin, and their tokens."""
    taken, counts = list[str](), list[int]()
    for part in parts:
        taken.append(part)
        counts.append(_count(backend, part))
        if sum(counts) >= max_tokens + MARGIN_TOKENS:
            break
    return taken, counts


def _count(backend: Tokenizer, part: str) -> int:
    preemption_point()
    return len(backend.encode(part, add_special_tokens=False))


def truncate(positions: Sequence[int], excess: int, truncation: Truncation) -> Sequence[int]:
    """Return `positions` without `excess` of them, taken from the left, the right or the middle."""
    kept = len(positions) - excess
    if truncation == "left":
        return positions[excess:]
    if truncation == "middle":
        return [*positions[: (kept + 1) // 2], *positions[len(positions) - kept // 2 :]]
    return positions[:kept]


def split_excess(first: int, second: int, excess: int) -> tuple[int, int]:
    """Return how many of `excess` tokens each of two texts loses.

    The longer one loses tokens first, then both lose the same number.
    """
    from_longer = min(excess, abs(first - second))
    half, odd = divmod(excess - from_longer, 2)
    if first >= second:
        return from_longer + half + odd, half
    return half + odd, from_longer + half


def too_long(tokens: int, limit: int, more: str = "") -> ItemError:
    """Return the error of an item that is too long; `more` says that it may have more tokens."""
    return ItemError(
        "input_too_long",
        f"{tokens} tokens{more}, the model takes {limit}: shorten it, or set options.truncation to "
        "left, right or middle",
    )
