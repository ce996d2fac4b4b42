"""Calls of an engine, each of which carries a row whose numbers are known."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from assay_models.base import Input, ItemError, Raw
from assay_models.card import ModelCard
from assay_models.engines.client import Engine
from assay_models.engines.errors import EngineError
from assay_models.families.classifier.proof_rows import is_text
from assay_models.remote import RemoteCallFailed

DEFAULT_BOUNDS = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}
"""The largest difference of a logit from plain Transformers in fp32, where the card states none."""
RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Canary:
    """A short row, and the raw that the proven engine computed for it."""

    row: Input
    raw: Raw


class EngineCalls:
    """Calls of one model's engine, which fail while it is not proven.

    With `[engine] canary = "call"` each call carries one of two canaries at a random place, or of
    two pairs among pairs that go as text. A call whose canary is answered with another number gives
    no numbers, and leaves the engine unproven.

    Args:
        engine: the client.
        card: the model's card.
        labels: the number of logits.
        chance: the choice of canaries and places.
    """

    def __init__(
        self, engine: Engine, card: ModelCard, *, labels: int, chance: random.Random | None = None
    ) -> None:
        assert card.engine is not None
        self.engine = engine
        self.bound = card.bounds.get(card.engine.dtype, DEFAULT_BOUNDS[card.engine.dtype])
        self.canaries: tuple[Canary, ...] = ()
        self.unproven: str | None = "its engine was not proven yet"
        self.doubted = asyncio.Event()
        self._labels = labels
        self._has_canary = card.engine.canary == "call"
        self._chance = random.Random() if chance is None else chance  # noqa: S311 no secret

    async def logits(self, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        """Compute the logits of each input, or return its own error, in one call; rows that go as
        token ids and pairs that go as text in one each.

        Raises:
            RemoteCallFailed: the engine is not proven, the call failed, or its canary was answered
                with another number.
        """
        if self.unproven is not None:
            raise _not_ready(self.unproven)
        try:
            return await _by_form(inputs, self._call)
        except EngineError as error:
            self._lose(error)
            raise

    @property
    def takes_pairs(self) -> bool:
        """Whether the engine takes pairs as text beside token ids."""
        return self.engine.takes_pairs and self._labels == 1

    def refute(self, reason: str) -> NoReturn:
        """Take the engine out of use until it is proven again.

        Raises:
            RemoteCallFailed: always.
        """
        self.unproven = reason
        self.doubted.set()
        raise _not_ready(reason)

    def is_near(self, raw: Raw | ItemError, expected: Raw) -> bool:
        """Return whether two raws differ by no more than the bound in any logit."""
        return (
            not isinstance(raw, ItemError)
            and len(raw) == len(expected)
            and all(abs(a - b) <= self.bound for a, b in zip(raw, expected, strict=True))
        )

    async def _call(self, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        form = is_text(inputs[0])
        canaries = [canary for canary in self.canaries if is_text(canary.row) == form]
        if not canaries:
            error = ItemError("invalid_item", "the engine could not be proven with pairs of texts")
            return [error] * len(inputs)
        if self._has_canary:
            return await self._call_with(self._chance.choice(canaries), inputs)
        return self._checked(await ask(self.engine, inputs))

    async def _call_with(self, canary: Canary, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        place = self._chance.randrange(len(inputs) + 1)
        rows = [*inputs[:place], canary.row, *inputs[place:]]
        raws = await ask(self.engine, rows)
        answer = raws.pop(place)
        if not self.is_near(answer, canary.raw):
            self.refute(
                "its engine answers a known row with another number than when it was proven: it "
                "serves another model, or mixes up rows or replies"
            )
        return self._checked(raws)

    def _checked(self, raws: list[Raw | ItemError]) -> list[Raw | ItemError]:
        for raw in raws:
            if not isinstance(raw, ItemError) and len(raw) != self._labels:
                self.refute(
                    f"its engine answers with {len(raw)} numbers, the checkpoint has {self._labels}"
                )
        return raws

    def _lose(self, error: EngineError) -> None:
        """Have the engine proven again soon: behind a lost connection may be another one."""
        if error.code == "engine_refused":
            return
        self.doubted.set()
        if not self._has_canary and self.unproven is None:
            self.unproven = f"its engine was lost and must be proven again: {error.detail}"


async def ask(
    engine: Engine, inputs: Sequence[Input], *, activation: bool = False
) -> list[Raw | ItemError]:
    """Send inputs to an engine in the form that it takes; return a raw or an error for each.

    Raises:
        EngineError: the call as a whole failed.
    """

    async def compute(rows: Sequence[Input]) -> list[Raw | ItemError]:
        if is_text(rows[0]):
            texts = [row.payload.text for row in rows]
            return await engine.classify_texts(texts, activation=activation)
        ids = [row.payload.ids.tolist() for row in rows]
        return await engine.classify(ids, activation=activation)

    return await _by_form(inputs, compute)


async def _by_form(
    inputs: Sequence[Input],
    compute: Callable[[Sequence[Input]], Awaitable[Sequence[Raw | ItemError]]],
) -> list[Raw | ItemError]:
    """Compute the rows that go as token ids, and those that go as text, apart from each other."""
    results: dict[int, Raw | ItemError] = {}
    for form in (False, True):
        places = [place for place, row in enumerate(inputs) if is_text(row) == form]
        if places:
            raws = await compute([inputs[place] for place in places])
            results |= zip(places, raws, strict=True)
    return [results[place] for place in range(len(inputs))]


def _not_ready(reason: str) -> RemoteCallFailed:
    return RemoteCallFailed("model_not_ready", reason, retry_after=RETRY_SECONDS)
