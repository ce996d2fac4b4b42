"""The rows on which an engine is proven, short ones and longer ones."""

from collections.abc import Callable
from dataclasses import dataclass

from assay_models.base import Input, ItemError, Truncation
from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.token_sequence import TokenSequence

Encode = Callable[[str, str | None, Truncation], TokenSequence]

_SHORT = (
    "yes",
    "one and two",
    "a red bird sings",
    "no, not at all!",
    "12 + 30 = 42",
    "where is it?",
    "the end of the day",
    "it rains",
)
_SENTENCES = (
    "the river ran past 3 old mills and a bridge; people came to watch, and (as always) nothing "
    "moved until noon, when 12 boats left for the sea. Why? Because x = y + 1 was not true!"
)
_LENGTHS = (1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 48)


@dataclass(frozen=True, slots=True)
class ProofRows:
    """Rows of unequal length. The raws of the `short` ones distinguish engines.

    `pairs` go to the engine as text though other rows go as token ids.
    """

    short: tuple[Input, ...]
    unequal: tuple[Input, ...]
    pairs: tuple[Input, ...] = ()


def proof_rows(card: ModelCard, encode: Encode) -> ProofRows:
    """Return the rows that prove the engine of a card: 8 short texts, and 16 more, with 4 pairs.

    Pairs are left out where the engine cannot read them.

    Args:
        card: the card, for its name.
        encode: encodes a text or a pair for the engine.

    Raises:
        CardError: no plain English can be encoded.
    """
    try:
        short = tuple(encode(text, None, "right").input() for text in _SHORT)
        long = [encode(_text(count), None, "right").input() for count in _LENGTHS]
    except ItemError as error:
        raise CardError(
            f"{card.id}: no plain English can be computed: {error.detail}. Either the tokenizer is "
            "another checkpoint's, or limits.max_tokens is too low"
        ) from error
    pairs = _pairs(encode)
    if any(is_text(row) and not is_text(short[0]) for row in pairs):
        return ProofRows(short, tuple(long), tuple(pairs))
    return ProofRows(short, (*long, *pairs))


def is_text(row: Input) -> bool:
    """Return whether a row goes to the engine as text."""
    return row.payload.text is not None


def _pairs(encode: Encode) -> list[Input]:
    pairs = [(_text(count), _SHORT[index]) for index, count in enumerate(_LENGTHS[:8:2])]
    try:
        return [encode(first, second, "right").input() for first, second in pairs]
    except ItemError:
        return []


def _text(count: int) -> str:
    return " ".join((_SENTENCES.split() * 2)[:count])
