"""Calls of an engine, each of which carries a row whose numbers are known."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from assay_models.base import Input, ItemError, Raw
from assay_models.card import ModelCard
from assay_models.engines.client import Engine
from assay_models.engines.errors import EngineError
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

    With `[engine] canary = "call"` each call carries one of two canaries at a random place. A call
    whose canary is answered with another number gives no numbers, and leaves the engine unproven.

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
        """Compute the logits of each input, or return its own error, in one call.

        Raises:
            RemoteCallFailed: the engine is not proven, the call failed, or its canary was answered
                with another number.
        """
        if self.unproven is not None:
            raise _not_ready(self.unproven)
        try:
            if not self._has_canary:
                return self._checked(await ask(self.engine, inputs))
            return await self._logits_with_canary(inputs)
        except EngineError as error:
            self._lose(error)
            raise

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

    async def _logits_with_canary(self, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        canary = self._chance.choice(self.canaries)
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
    if engine.takes == "ids":
        rows = [row.payload.ids.tolist() for row in inputs]
        return await engine.classify(rows, activation=activation)
    texts = [row.payload.text for row in inputs]
    return await engine.classify_texts(texts, activation=activation)


def _not_ready(reason: str) -> RemoteCallFailed:
    return RemoteCallFailed("model_not_ready", reason, retry_after=RETRY_SECONDS)
