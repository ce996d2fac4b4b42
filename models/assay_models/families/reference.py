"""A family without weights or torch: the share of the prompt's vocabulary that the response has.

It exists so that the service can be run and tested where no other family can. Its score says
nothing about quality, and its card says so.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import ModelCard
from assay_models.items import TextItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of

VERSION = 1
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """Word overlap as log-odds: ln((1 + shared) / (1 + missing)) over the prompt's vocabulary."""

    fingerprint: str
    max_tokens: int
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "ReferenceModel":
        """Read the card's limit; there is nothing else to read."""
        parts = {"family": "reference", "version": VERSION}
        return cls(fingerprint_of(parts), card.limits.max_tokens)

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Split both texts into words, one token a word."""
        prompt, response = (_WORD.findall(text.lower()) for text in _texts(items[0]))
        excess = len(prompt) + len(response) - self.max_tokens
        flags: tuple[str, ...] = ()
        if excess > 0:
            if options.truncation == "error":
                raise ItemError(
                    "input_too_long",
                    f"{excess} words over {self.max_tokens}: shorten it, or set "
                    "options.truncation to left, right or middle",
                )
            response = _truncated(response, excess, options.truncation)
            flags = ("truncated",)
        payload = (frozenset(prompt), frozenset(response))
        key = json.dumps([sorted(words) for words in payload]).encode()
        details = {"truncated_tokens": excess} if flags else {}
        inputs = (Input(key, max(1, len(prompt) + len(response)), payload),)
        return Prepared(inputs, flags=flags, details=details)

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of all tokens: nothing is padded."""
        return sum(row.tokens for row in inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """Compute one number for each input."""
        return [(_overlap(*row.payload),) for row in inputs]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return the raw as the score."""
        ((raw,),) = raws
        return [
            Score(
                raw,
                raw,
                channels={"reward": raw},
                flags=prepared.flags,
                details=prepared.details,
            )
        ]


def _texts(item: Item) -> tuple[str, str]:
    assert isinstance(item, TextItem)
    if item.text is not None:
        return item.text, item.text_pair or ""
    if isinstance(item.prompt, str) and item.response is not None:
        return item.prompt, item.response
    raise ItemError("invalid_item", "give `prompt` and `response`, or `text`")


def _truncated(words: list[str], excess: int, side: str) -> list[str]:
    kept = max(0, len(words) - excess)
    if side == "left":
        return words[len(words) - kept :]
    if side == "middle":
        return words[: (kept + 1) // 2] + words[len(words) - kept // 2 :]
    return words[:kept]


def _overlap(prompt: frozenset[str], response: frozenset[str]) -> float:
    shared = len(prompt & response)
    return math.log((1 + shared) / (1 + len(prompt) - shared))
