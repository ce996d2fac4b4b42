"""EngineProof: the proof that an engine computes a checkpoint's own logits, repeated while it runs.

Each URL is proven alone. Its numbers must be logits, which activation changes as it must; they may
not depend on the order of the rows; those of the card's example, of its golden texts and of a
family's own checks must be right; and where the weights are at hand, they must be those of plain
Transformers.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

from assay_models.base import Input, ItemError, Raw
from assay_models.card import CardError, EngineCard, ModelCard
from assay_models.deadlines import set_latest
from assay_models.engines.client import Engine, open_engine
from assay_models.engines.errors import EngineError
from assay_models.engines.identity import EngineIdentity
from assay_models.engines.listener import EngineListener
from assay_models.families.classifier.check import Check
from assay_models.families.classifier.engine_calls import EngineCalls, ask
from assay_models.families.classifier.outputs import Outputs
from assay_models.families.classifier.proof_rows import ProofRows
from assay_models.families.classifier.proven_engine import Canary, ProvenEngine, parts_of
from assay_models.families.classifier.reference_logits import ReferenceLogits
from assay_models.shaping import probabilities, sigmoid

logger = logging.getLogger(__name__)

CALL_SECONDS = 30.0
"""The time for each step of a proof at the engine."""
MIN_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 15.0
_ABSENT = ("engine_unavailable", "engine_timeout")
_NO_REVISION = ("", "default")
"""What an engine says that knows no revision of its weights."""


class EngineProof:
    """The proof of one model's engine; see `assay_models.proof.Proof`.

    An engine that does not answer is not refuted: the model goes on with the numbers that it has.

    Args:
        card: the model's card.
        outputs: the outputs of its checkpoint.
        calls: the calls that the proof lets through.
        rows: the rows that it computes.
        reference: plain Transformers on the same weights, where that is possible.
        listener: receiver of the events of its calls.
    """

    def __init__(
        self,
        card: ModelCard,
        outputs: Outputs,
        *,
        calls: EngineCalls,
        rows: ProofRows,
        reference: ReferenceLogits | None,
        listener: EngineListener,
    ) -> None:
        assert card.engine is not None
        self._card, self._engine_card = card, card.engine
        self._outputs = outputs
        self._calls = calls
        self._rows = rows
        self._reference = reference
        self._checks: list[Check] = []
        self._engines = {
            url: open_engine(_with_url(card, card.engine, url), listener=listener)
            for url in card.engine.urls
        }
        self._is_partial = False
        self._failures = 0
        self._verdict = ""
        self._difference: float | None = None
        self._refuse_unprovable()

    @property
    def unproven(self) -> str | None:
        """The reason why the engine's numbers are not served; None while they are."""
        return self._calls.unproven

    @property
    def fingerprint_parts(self) -> Mapping[str, object]:
        """The engine that was proven last: what it and the card say of it."""
        card, proven = self._engine_card, self._calls.proven
        parts = None if proven is None else proven.parts
        return {"engine": (card.protocol, card.dtype, card.revision, parts)}

    def require(self, inputs: Sequence[Input], verify: Callable[[Sequence[Raw]], None]) -> None:
        """Add inputs whose raws `verify` must accept without a `CardError`."""
        self._checks.append(Check(tuple(inputs), verify))

    async def due(self) -> None:
        """Return after a while if the last proof failed, else on schedule or after a doubt."""
        if self._failures:
            pause = MIN_PAUSE_SECONDS * 2 ** min(self._failures - 1, 8)
            await asyncio.sleep(min(pause, MAX_PAUSE_SECONDS))
            return
        seconds = self._engine_card.prove_seconds
        if self._is_partial:  # the other URLs get no calls until they are proven
            seconds = min(seconds, MAX_PAUSE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._calls.doubted.wait()
                if self._calls.unproven is None:  # an engine that flaps is not proven all the time
                    await asyncio.sleep(MIN_PAUSE_SECONDS)

    async def prove(self) -> None:
        """Try the proof once, in a task whose calls have a deadline of their own.

        No call comes between the engine's acceptance and the return: it would be of one engine and
        have the fingerprint of another.
        """
        self._calls.begin_proof()
        self._difference = None
        try:
            identity, proven = await asyncio.create_task(self._trial())
        except EngineError as error:
            self._fail(f"{self._card.id}: {error.detail}")
            if error.code not in _ABSENT or self._calls.proven is None:
                self._calls.unproven = error.detail
        except CardError as error:
            self._fail(str(error))
            self._calls.unproven = str(error)
        else:
            self._failures = 0
            self._is_partial = len(proven) < len(self._engines)
            self._accept(identity, proven)
            self._log_success(proven)

    async def close(self) -> None:
        """Close the connections."""
        for engine in (*self._engines.values(), self._calls.engine):
            await engine.close()

    def _fail(self, reason: str) -> None:
        self._failures += 1
        self._log(logging.WARNING, f"the proof of an engine failed: {reason}")

    def _log_success(self, urls: Iterable[str]) -> None:
        differs = "no weights are here to compare with"
        if self._difference is not None:
            differs = f"plain Transformers differs by {self._difference:.1e} at most"
        bound = f"the bound of {self._engine_card.dtype} is {self._calls.bound:g}"
        proven = f"{self._card.id}: the engine is proven at {', '.join(urls)}"
        checks = f"checks that hold: {len(self._checks)}"
        self._log(logging.INFO, proven, f"; {differs}, {bound}; {checks}")

    def _log(self, level: int, verdict: str, details: str = "") -> None:
        """Log a verdict; only for debugging if it is the one before."""
        logger.log(logging.DEBUG if verdict == self._verdict else level, "%s%s", verdict, details)
        self._verdict = verdict

    def _accept(self, identity: EngineIdentity, proven: Mapping[str, list[Raw]]) -> None:
        raws = next(iter(proven.values()))
        accepted = self._calls.proven
        if accepted is None or not self._is_same(identity, raws, accepted):
            count = len(self._rows.short)
            canaries = (
                *self._canaries(self._rows.short, raws[:count]),
                *self._canaries(self._rows.pairs, raws[count:]),
            )
            mark = "" if self._is_named(identity) else secrets.token_hex(8)
            accepted = ProvenEngine(identity, tuple(raws), canaries, mark)
        self._calls.accept(accepted, proven)

    def _is_same(self, identity: EngineIdentity, raws: Sequence[Raw], known: ProvenEngine) -> bool:
        is_named_so = parts_of(identity) == parts_of(known.identity)
        return is_named_so and self._are_near(raws, known.raws)

    def _is_named(self, identity: EngineIdentity) -> bool:
        """Return whether the fingerprint names the weights: by what the engine or the card says of
        them, or by their digests where the proof compares with them."""
        return (
            self._reference is not None
            or bool(self._engine_card.revision or identity.fingerprint)
            or identity.revision not in _NO_REVISION
        )

    async def _trial(self) -> tuple[EngineIdentity, Mapping[str, list[Raw]]]:
        """Prove every URL that answers; return their identity, and the raws of the short rows of
        each.

        Raises:
            EngineError: none answers, or a call failed.
            CardError: the numbers of one are wrong; the text says which and why.
        """
        _set_deadline()
        identity = await self._calls.engine.identity()
        known = self._calls.proven
        if known is not None and parts_of(identity) != parts_of(known.identity):
            self._calls.unproven = "another engine answers than before, and is being proven"
        self._refuse_other(identity)
        proven: dict[str, list[Raw]] = {}
        absent: EngineError | None = None
        for url, engine in self._engines.items():
            if url in identity.unreachable:
                continue
            try:
                proven[url] = await self._prove_engine(engine, identity)
            except (CardError, EngineError) as error:
                if isinstance(error, EngineError) and error.code in _ABSENT:
                    absent = error
                    continue
                raise CardError(f"{self._card.id}: the engine at {url} {error}") from error
        if absent is not None and not proven:
            raise absent
        (first, raws), *others = proven.items()
        for url, other in others:
            if not self._are_near(other, raws):
                raise CardError(
                    f"{self._card.id}: the engines at {first} and {url} compute different numbers"
                )
        self._refuse_changed(identity, raws)
        return identity, proven

    async def _prove_engine(self, engine: Engine, identity: EngineIdentity) -> list[Raw]:
        _set_deadline()  # the one before may have been spent on a URL that hangs
        if parts_of(await engine.identity()) != parts_of(identity):
            raise CardError("became another one while it was proven")
        raws = await self._prove_rows(engine, self._rows.short)
        if self._rows.pairs:
            raws += await self._prove_rows(engine, self._rows.pairs)
        for check in self._checks:
            check.verify(await self._ask(engine, check.inputs))
        if self._reference is not None:
            await self._compare(engine, self._reference)
        return raws

    async def _prove_rows(self, engine: Engine, rows: Sequence[Input]) -> list[Raw]:
        """Prove what can be proven without a known number; return the raws of the rows."""
        alone = await self._ask(engine, rows[:1])  # its failure says more than that of a batch
        raws = await self._ask(engine, rows)
        backwards = await self._ask(engine, rows[::-1])
        if not self._are_near((*alone, *backwards[::-1]), (raws[0], *raws)):
            raise CardError(
                "computes other numbers for the same rows in another order: it mixes up rows, or "
                "its numbers depend on the batch by more than the bound "
                f"({self._engine_card.dtype}: {self._calls.bound:g})"
            )
        first, second = self._farthest(raws)
        if self._calls.is_near(raws[first], raws[second]):
            raise CardError(
                "computes the same number for every text: it applies a softmax to a single logit, "
                "or serves no classifier"
            )
        if engine.can_activate:
            self._verify_activation(raws, await self._ask(engine, rows, activation=True))
        return raws

    async def _compare(self, engine: Engine, reference: ReferenceLogits) -> None:
        inputs = (*self._rows.short, *self._rows.unequal, *self._rows.pairs)
        expected = await reference.logits(inputs)
        raws = await self._ask(engine, inputs)
        differences = (
            abs(a - b)
            for raw, right in zip(raws, expected, strict=True)
            for a, b in zip(raw, right, strict=True)
        )
        self._difference = max(self._difference or 0.0, *differences)
        for row, raw, right in zip(inputs, raws, expected, strict=True):
            if not self._calls.is_near(raw, right):
                raise CardError(
                    f"computes {_numbers(raw)} for a row of {row.tokens} tokens, plain "
                    f"Transformers {_numbers(right)} with the weights of the card: it serves other "
                    "weights, another dtype or other tokens, or orders the labels otherwise; the "
                    f"bound of {self._engine_card.dtype} is {self._calls.bound:g}"
                )

    def _verify_activation(self, raws: Sequence[Raw], activated: Sequence[Raw]) -> None:
        """Require that activation makes sigmoid or softmax of the raws, and does change them."""
        regression = self._outputs.problem_type == "regression"
        expected = raws if regression else [self._activated(raw) for raw in raws]
        if not regression and self._are_near(activated, raws):
            raise CardError(
                "answers the same with and without activation: it ignores the option (an older or "
                "newer engine, or a proxy that drops fields), and its numbers are no logits"
            )
        if not self._are_near(activated, expected):
            raise CardError(
                "answers with numbers whose activation is neither their sigmoid nor their softmax: "
                "they are no logits, or the checkpoint's problem_type is another one"
            )

    def _activated(self, raw: Raw) -> Raw:
        several = self._outputs.problem_type == "multi_label_classification"
        if len(raw) == 1 or several:
            return tuple(sigmoid(number) for number in raw)
        return tuple(probabilities(raw))

    async def _ask(
        self, engine: Engine, inputs: Sequence[Input], *, activation: bool = False
    ) -> list[Raw]:
        _set_deadline()
        size = self._engine_card.max_call_items
        answers: list[Raw | ItemError] = []
        for start in range(0, len(inputs), size):
            answers += await ask(engine, inputs[start : start + size], activation=activation)
        raws = [raw for raw in answers if not isinstance(raw, ItemError)]
        errors = [error for error in answers if isinstance(error, ItemError)]
        if errors:
            raise CardError(f"refuses a row of the proof: {errors[0].detail}")
        if any(len(raw) != len(self._outputs.labels) for raw in raws):
            raise CardError(
                f"answers with {len(raws[0])} numbers, the checkpoint has "
                f"{len(self._outputs.labels)} labels"
            )
        return raws

    def _refuse_other(self, identity: EngineIdentity) -> None:
        name, card = f"{self._card.id}: the engine", self._engine_card
        limit, labels = self._card.limits.max_tokens, self._outputs.labels
        if identity.dtype not in (None, card.dtype):
            raise CardError(
                f"{name} computes in {identity.dtype}, its card says dtype = {card.dtype!r}"
            )
        if identity.max_tokens is not None and identity.max_tokens < limit:
            raise CardError(
                f"{name} takes {identity.max_tokens} tokens, limits.max_tokens is {limit}: lower "
                "it, or start the engine with room for more"
            )
        same_names = sorted(identity.labels) == sorted(labels)
        if same_names and tuple(identity.labels) != labels:
            raise CardError(
                f"{name} orders its labels {', '.join(identity.labels)}, the checkpoint "
                f"{', '.join(labels)}"
            )

    def _refuse_changed(self, identity: EngineIdentity, raws: Sequence[Raw]) -> None:
        """Refuse other weights under a name that the fingerprint has for those proven before."""
        known = self._calls.proven
        if known is None or parts_of(identity) != parts_of(known.identity):
            return
        if self._is_named(identity) and not self._are_near(raws, known.raws):
            raise CardError(
                f"{self._card.id}: the engine computes other numbers than before and calls itself "
                "the same: give other weights another revision, or engine.revision in the card"
            )

    def _refuse_unprovable(self) -> None:
        engine = self._calls.engine
        has_reference = self._card.example or self._card.golden or self._reference
        if not engine.can_activate and not has_reference:
            raise CardError(
                f"{self._card.id}: nothing shows that an engine of the protocol "
                f"{self._engine_card.protocol} computes this checkpoint's logits: give the card an "
                "[example] with the score by plain Transformers, or weights here to compare with"
            )

    def _are_near(self, raws: Sequence[Raw], others: Sequence[Raw]) -> bool:
        return len(raws) == len(others) and all(map(self._calls.is_near, raws, others))

    def _canaries(self, rows: Sequence[Input], raws: Sequence[Raw]) -> list[Canary]:
        if not rows:
            return []
        return [Canary(rows[index], raws[index]) for index in self._farthest(raws)]

    def _farthest(self, raws: Sequence[Raw]) -> tuple[int, int]:
        """Return the two rows whose raws differ most."""
        return max(
            combinations(range(len(raws)), 2),
            key=lambda pair: max(
                abs(a - b) for a, b in zip(raws[pair[0]], raws[pair[1]], strict=True)
            ),
        )


def _set_deadline() -> None:
    deadline = time.monotonic() + CALL_SECONDS
    set_latest(lambda: deadline)


def _with_url(card: ModelCard, engine: EngineCard, url: str) -> ModelCard:
    alone = engine.model_copy(update={"urls": (url,)})
    return card.model_copy(update={"engine": alone})


def _numbers(raw: Raw) -> str:
    return ", ".join(f"{number:.6g}" for number in raw)
