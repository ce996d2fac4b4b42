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
from assay_models.engines.listener import CallOutcome, EngineListener, Place
from assay_models.engines.protocol import text_size
from assay_models.engines.splitting import compute_rows
from assay_models.remote import RemoteCallFailed

DEFAULT_BOUNDS = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}
"""The largest difference of a logit from plain Transformers in fp32, where the card states none."""
RETRY_SECONDS = 2.0
_LOST = "a connection to its engine was lost: it must be proven again"
_BROKEN = ("engine_unavailable", "engine_bad_reply")


@dataclass(frozen=True, slots=True)
class Canary:
    """A short row, and the raw that the proven engine computed for it."""

    row: Input
    raw: Raw


class Losses:
    """A listener that counts the tries that lost an engine, and passes all events on.

    Behind a lost connection, or a reply of something else, may be another engine the next time,
    also where a later try of the same call succeeds.

    Args:
        listener: receives all events.
    """

    def __init__(self, listener: EngineListener) -> None:
        self.count = 0
        self._listener = listener
        self.on_retry = listener.on_retry
        self.on_breaker = listener.on_breaker
        self.on_in_flight = listener.on_in_flight

    def on_call(self, place: Place, outcome: CallOutcome, seconds: float, rows: int) -> None:
        """Count a try that lost the engine."""
        self.count += outcome in ("unavailable", "bad_reply")
        self._listener.on_call(place, outcome, seconds, rows)


class EngineCalls:
    """Calls of one model's engine, which fail while it is not proven.

    With `[engine] canary = "call"` each HTTP call carries one of two canaries at a random place,
    also the parts of a call that is split. A call whose canary is answered with another number
    gives no numbers, and leaves the engine unproven. With `canary = "schedule"` so does a call
    during which a connection was lost.

    Args:
        engine: the client.
        card: the model's card.
        losses: the listener of the client.
        labels: the number of logits.
        chance: the choice of canaries and places.
    """

    def __init__(
        self,
        engine: Engine,
        card: ModelCard,
        *,
        losses: Losses,
        labels: int,
        chance: random.Random | None = None,
    ) -> None:
        assert card.engine is not None
        self.engine = engine
        self._losses = losses
        self._max_tokens, self._max_rows = card.engine.batch_bounds
        self.bound = card.bounds.get(card.engine.dtype, DEFAULT_BOUNDS[card.engine.dtype])
        self.canaries: tuple[Canary, ...] = ()
        self.unproven: str | None = "its engine was not proven yet"
        self.doubted = asyncio.Event()
        self._labels = labels
        self._has_canary = card.engine.canary == "call"
        self._chance = random.Random() if chance is None else chance  # noqa: S311 no secret

    async def logits(self, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        """Compute the logits of each input, or return its own error.

        Raises:
            RemoteCallFailed: the engine is not proven, the call failed, or its canary was answered
                with another number.
        """
        if self.unproven is not None:
            raise _not_ready(self.unproven)
        losses = self._losses.count
        try:
            if self._has_canary:
                return await self._logits_with_canaries(inputs)
            raws = self._checked(await ask(self.engine, inputs))
        finally:
            is_lost = self._losses.count > losses
            if is_lost:
                self.doubted.set()
            if is_lost and not self._has_canary and self.unproven is None:
                self.unproven = _LOST
        if is_lost:
            raise _not_ready(_LOST)
        return raws

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

    async def _logits_with_canaries(self, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        try:
            return await compute_rows(
                inputs,
                self._call_with_canary,
                size=self._size,
                max_rows=self._max_rows,
                max_tokens=self._max_tokens,
            )
        except EngineError as error:
            if len(inputs) > 1 or error.code not in _BROKEN or not error.may_be_one_row:
                raise
            await self._call_with_canary(())  # if this works, the engine fails on this input only
            return [ItemError(error.code, f"{error.detail}, also with this item alone")]

    async def _call_with_canary(self, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        canary = self._chance.choice(self.canaries)
        place = self._chance.randrange(len(inputs) + 1)
        rows = [*inputs[:place], canary.row, *inputs[place:]]
        raws = await ask(self.engine, rows, whole=True)
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

    def _size(self, row: Input) -> int:
        return row.tokens if self.engine.takes == "ids" else text_size(row.payload.text)


async def ask(
    engine: Engine, inputs: Sequence[Input], *, activation: bool = False, whole: bool = False
) -> list[Raw | ItemError]:
    """Send inputs to an engine in the form that it takes; return a raw or an error for each.

    `whole`: in one call, which fails as a whole.

    Raises:
        EngineError: the call as a whole failed.
    """
    if engine.takes == "ids":
        rows = [row.payload.ids.tolist() for row in inputs]
        return await engine.classify(rows, activation=activation, whole=whole)
    texts = [row.payload.text for row in inputs]
    return await engine.classify_texts(texts, activation=activation, whole=whole)


def _not_ready(reason: str) -> RemoteCallFailed:
    return RemoteCallFailed("model_not_ready", reason, retry_after=RETRY_SECONDS)
