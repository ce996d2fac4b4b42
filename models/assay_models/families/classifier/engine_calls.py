"""Calls of an engine, each of which carries a row whose numbers are known."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import NoReturn

from assay_models.base import Input, ItemError, Raw
from assay_models.card import ModelCard
from assay_models.engines.client import Engine
from assay_models.engines.errors import EngineError
from assay_models.engines.listener import BreakerState, CallOutcome, EngineListener, Place
from assay_models.engines.splitting import compute_rows
from assay_models.families.classifier.proof_rows import is_text
from assay_models.families.classifier.proven_engine import Canary, ProvenEngine
from assay_models.remote import RemoteCallFailed

DEFAULT_BOUNDS = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}
"""The largest difference of a logit from plain Transformers in fp32, where the card states none."""
RETRY_SECONDS = 2.0
# The reason names URLs: it is for the log and for those who may read, not for who scores.
_UNPROVEN = "its engine is not proven now; the server's log says why"
_LOST = "a connection to its engine was lost: it must be proven again"
_OTHER = "another engine was proven while this call was in flight"
_BROKEN = ("engine_unavailable", "engine_bad_reply")


class Losses:
    """A listener that hears of each URL that was lost, and passes all events on.

    Behind a lost connection, or a reply of something else, may be another engine the next time,
    also where a later try of the same call succeeds.

    Args:
        listener: receives all events.
    """

    def __init__(self, listener: EngineListener) -> None:
        self.on_loss: Callable[[int], None] = lambda url: None
        self._listener = listener
        self.on_retry = listener.on_retry
        self.on_in_flight = listener.on_in_flight

    def on_call(self, place: Place, outcome: CallOutcome, seconds: float, rows: int) -> None:
        """Hear the outcome of a try."""
        self._listener.on_call(place, outcome, seconds, rows)
        if outcome in ("unavailable", "bad_reply"):
            self.on_loss(place.url)

    def on_breaker(self, place: Place, state: BreakerState) -> None:
        """Hear the new state of a URL's circuit breaker."""
        self._listener.on_breaker(place, state)
        if state == "open":
            self.on_loss(place.url)


class EngineCalls:
    """Calls of one model's engine, which fail while it is not proven.

    With `[engine] canary = "call"` each HTTP call carries one of two canaries at a random place, or
    of two pairs among pairs that go as text; so do the parts of a call that is split. A call whose
    canary is answered with another number gives no numbers, and leaves the engine unproven.

    Only proven URLs are called. One that was lost is left out until it is proven again. The last
    one is not: with `canary = "call"` its calls prove themselves, else the engine is unproven.

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
        self.bound = card.bounds.get(card.engine.dtype, DEFAULT_BOUNDS[card.engine.dtype])
        self.proven: ProvenEngine | None = None
        self.unproven: str | None = "its engine was not proven yet"
        self.doubted = asyncio.Event()
        self._urls = card.engine.urls
        self._used: frozenset[str] = frozenset(self._urls)
        self._lost: set[str] = set()
        losses.on_loss = self._lose
        self._max_tokens, self._max_rows = card.engine.batch_bounds
        self._labels = labels
        self._has_canary = card.engine.canary == "call"
        self._chance = random.Random() if chance is None else chance  # noqa: S311 no secret

    async def logits(self, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        """Compute the logits of each input, or return its own error; rows that go as token ids and
        pairs that go as text in calls of their own.

        Raises:
            RemoteCallFailed: the engine is not proven or was refuted meanwhile, a call failed, or
                its canary was answered with another number.
        """
        proven = self._require_proven()
        raws = await _by_form(inputs, partial(self._compute, proven))
        if self._require_proven() is not proven:
            raise _not_ready(_OTHER)
        return raws

    @property
    def takes_pairs(self) -> bool:
        """Whether the engine takes pairs as text beside token ids."""
        return self.engine.takes_pairs and self._labels == 1

    def begin_proof(self) -> None:
        """Forget doubts: a proof begins that answers them."""
        self.doubted.clear()
        self._lost.clear()

    def accept(self, proven: ProvenEngine, urls: Collection[str]) -> None:
        """Compute with the engine that was proven at these URLs, but those lost meanwhile."""
        self.proven, self.unproven = proven, None
        self._use(frozenset(urls))
        for url in self._lost & self._used:
            self._bar(url)

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

    async def _compute(
        self, proven: ProvenEngine, inputs: Sequence[Input]
    ) -> list[Raw | ItemError]:
        """Compute inputs of one form, in calls that the batcher's counts of tokens bound."""
        form = is_text(inputs[0])
        canaries = [canary for canary in proven.canaries if is_text(canary.row) == form]
        if not canaries:
            error = ItemError("invalid_item", "the engine could not be proven with pairs of texts")
            return [error] * len(inputs)
        call = partial(self._call_with, canaries) if self._has_canary else self._call
        try:
            return await compute_rows(
                inputs,
                call,
                size=lambda row: row.tokens,
                max_rows=self._max_rows,
                max_tokens=self._max_tokens,
            )
        except EngineError as error:
            if len(inputs) > 1 or error.code not in _BROKEN or not error.may_be_one_row:
                raise
            await self._call([canaries[0].row])  # if this works, the engine fails on this row only
            return [ItemError(error.code, f"{error.detail}, also with this item alone")]

    async def _call(self, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        """Compute rows of one form by one HTTP call."""
        raws = await ask(self.engine, inputs, whole=True)
        for raw in raws:
            if not isinstance(raw, ItemError) and len(raw) != self._labels:
                self.refute(
                    f"its engine answers with {len(raw)} numbers, the checkpoint has {self._labels}"
                )
        return raws

    async def _call_with(
        self, canaries: Sequence[Canary], inputs: Sequence[Input]
    ) -> list[Raw | ItemError]:
        canary = self._chance.choice(canaries)
        place = self._chance.randrange(len(inputs) + 1)
        raws = await self._call([*inputs[:place], canary.row, *inputs[place:]])
        answer = raws.pop(place)
        if not self.is_near(answer, canary.raw):
            self.refute(
                "its engine answers a known row with another number than when it was proven: it "
                "serves another model, or mixes up rows or replies"
            )
        return raws

    def _require_proven(self) -> ProvenEngine:
        if self.unproven is not None:
            raise _not_ready(_UNPROVEN)
        assert self.proven is not None
        return self.proven

    def _lose(self, number: int) -> None:
        """Have the engine proven again soon: behind a lost connection may be another one."""
        self.doubted.set()
        self._lost.add(self._urls[number])
        self._bar(self._urls[number])

    def _bar(self, url: str) -> None:
        others = self._used - {url}
        if others:
            self._use(others)
        elif not self._has_canary and self.unproven is None:
            self.unproven = _LOST

    def _use(self, urls: frozenset[str]) -> None:
        self._used = urls
        self.engine.use(urls)


async def ask(
    engine: Engine, inputs: Sequence[Input], *, activation: bool = False, whole: bool = False
) -> list[Raw | ItemError]:
    """Send inputs to an engine in the form that it takes; return a raw or an error for each.

    `whole`: in one call for each form, which fails as a whole.

    Raises:
        EngineError: the call as a whole failed.
    """

    async def compute(rows: Sequence[Input]) -> list[Raw | ItemError]:
        if is_text(rows[0]):
            texts = [row.payload.text for row in rows]
            return await engine.classify_texts(texts, activation=activation, whole=whole)
        ids = [row.payload.ids.tolist() for row in rows]
        return await engine.classify(ids, activation=activation, whole=whole)

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
