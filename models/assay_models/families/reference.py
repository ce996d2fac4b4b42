"""A family without weights or torch: how much of the prompt's vocabulary the response takes up.

It exists so that the service can be run and tested where nothing else can. It says nothing about
quality, and its card says so.
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
        """Nothing is read; the card's limit is all there is."""
        parts = {"family": "reference", "version": VERSION}
        return cls(fingerprint_of(parts), card.limits.max_tokens)

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Split both sides into words, one token a word."""
        asked, answered = (_WORD.findall(side.lower()) for side in _sides(items[0]))
        over = len(asked) + len(answered) - self.max_tokens
        flags: tuple[str, ...] = ()
        if over > 0:
            if options.truncation == "error":
                raise ItemError("input_too_long", f"{over} words over {self.max_tokens}")
            answered = _cut(answered, over, options.truncation)
            flags = ("truncated",)
        payload = (frozenset(asked), frozenset(answered))
        key = json.dumps([sorted(side) for side in payload]).encode()
        details = {"truncated_tokens": over} if flags else {}
        inputs = (Input(key, max(1, len(asked) + len(answered)), payload),)
        return Prepared(inputs, flags=flags, details=details)

    def cost(self, inputs: Sequence[Input]) -> int:
        """Nothing is padded."""
        return sum(one.tokens for one in inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """One number for each input."""
        return [(_overlap(*one.payload),) for one in inputs]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """The score is the raw."""
        ((raw,),) = raws
        return [Score(raw, raw, {"reward": raw}, prepared.flags, prepared.details)]


def _sides(item: Item) -> tuple[str, str]:
    assert isinstance(item, TextItem)
    if item.text is not None:
        return item.text, item.text_pair or ""
    if isinstance(item.prompt, str) and item.response is not None:
        return item.prompt, item.response
    raise ItemError("invalid_item", "give `prompt` and `response`, or `text`")


def _cut(words: list[str], over: int, side: str) -> list[str]:
    kept = max(0, len(words) - over)
    if side == "left":
        return words[len(words) - kept :]
    if side == "middle":
        return words[: (kept + 1) // 2] + words[len(words) - kept // 2 :]
    return words[:kept]


def _overlap(asked: frozenset[str], answered: frozenset[str]) -> float:
    shared = len(asked & answered)
    return math.log((1 + shared) / (1 + len(asked) - shared))
