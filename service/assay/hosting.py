"""ServedModel: one model in this process, from loading and self-test to the last forward pass."""

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

from assay.batching import BatchLimits, DynamicBatcher
from assay.errors import AssayError
from assay.metrics import Metrics
from assay_models.base import Options, Prepared, Raw, RewardModel, Truncation
from assay_models.card import CardError, ModelCard
from assay_models.registry import Family, Runtime, family_of
from assay_models.repository import Entry, ModelRepository, fingerprint_of

logger = logging.getLogger(__name__)

PROBE = b"probe"
FRESH_SECONDS = 10.0
PROBE_SECONDS = 10.0


class SelfTestFailed(Exception):
    """The loaded model does not give the score its card promises; it is not served."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The card's example, computed at start beside what the card expects."""

    expected: float
    got: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the two agree within the card's tolerance."""
        return math.isfinite(self.got) and abs(self.got - self.expected) <= self.tolerance


class ServedModel:
    """A card and, once loaded, the model and its batcher.

    `state` is `loading` until the model has computed its card's example, then `ready`; or `failed`,
    with `failure` saying why. `fingerprints` digest, for each choice of options, all that decides a
    served number.
    """

    def __init__(
        self,
        entry: Entry,
        max_queue_tokens: int,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self.id: str = entry.card.id
        self.card: ModelCard = entry.card
        self.family: Family = family_of(entry.card)
        self.state: Literal["loading", "ready", "failed"] = "loading"
        self.failure: str | None = None
        self.self_test: SelfTest | None = None
        self.model: RewardModel | None = None
        self.batcher: DynamicBatcher | None = None
        self.fingerprints: dict[Options, str] = {}
        self._entry = entry
        self._max_queue_tokens = max_queue_tokens
        self._metrics = metrics
        self._clock = clock
        self._probe: Prepared | None = None
        self._loading: asyncio.Task[None] | None = None
        self._device = ThreadPoolExecutor(1, thread_name_prefix=f"device {entry.card.id}")

    def start(self, repository: ModelRepository, runtime: Runtime, turn: asyncio.Lock) -> None:
        """Begin to load in the background. Call once, inside the event loop.

        `turn` is held while a model loads, so that models load one after the other: the imports of
        torch and transformers are not safe from several threads at once.
        """
        self._loading = asyncio.create_task(self._serve(repository, runtime, turn))
        self._loading.add_done_callback(self._on_loaded)

    async def loaded(self) -> bool:
        """Wait until the model is ready or has failed; whether it is ready."""
        assert self._loading is not None, "start() comes first"
        await asyncio.wait({self._loading})
        return self.state == "ready"

    async def ready(self) -> bool:
        """Whether the model computes: a batch completed lately, or a probe does now."""
        computes = self.batcher is not None and self.batcher.alive and await self._computes()
        self._metrics.ready.labels(self.id).set(computes)
        return computes

    async def close(self, timeout: float) -> None:
        """Finish what was admitted, within `timeout` seconds, and end the device thread."""
        if self._loading is not None:
            await asyncio.wait({self._loading}, timeout=timeout)
        if self.batcher is not None:
            await self.batcher.close(timeout)
        self._device.shutdown(wait=False, cancel_futures=True)

    async def _serve(
        self, repository: ModelRepository, runtime: Runtime, turn: asyncio.Lock
    ) -> None:
        loop = asyncio.get_running_loop()
        async with turn:
            model = await loop.run_in_executor(self._device, self._load, repository, runtime)
        limits = self.card.limits
        self.batcher = DynamicBatcher(
            self.id,
            model.predict,
            self._device if model.runs == "device" else None,
            BatchLimits(limits.max_batch_tokens, limits.max_batch_size, self._max_queue_tokens),
            self._metrics,
            self._clock,
        )
        self.batcher.start()
        self.fingerprints = _fingerprints(model, self.card)
        self.model, self.state = model, "ready"
        logger.info("%s is ready", self.id)

    def _on_loaded(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        told = isinstance(error, CardError | SelfTestFailed)
        self.state = "failed"
        self.failure = str(error) if told else f"loading raised {type(error).__name__}"
        cause = None if told else error
        logger.error("%s failed to load: %s", self.id, self.failure, exc_info=cause)

    def _load(self, repository: ModelRepository, runtime: Runtime) -> RewardModel:
        model = self.family.load(self.card, repository.locate(self._entry), runtime)
        example = self.card.example
        fields = example.item if example is not None else self.family.probe
        self._probe = model.prepare([self.family.item.model_validate(fields)], Options())
        if example is not None and model.runs == "device":
            self.self_test = _self_test(model, self._probe, example.score, example.tolerance)
            if not self.self_test.passed:
                raise SelfTestFailed(
                    f"the card's example scores {self.self_test.got:.6g}, the card says "
                    f"{example.score:.6g} within {example.tolerance:g}"
                )
        return model

    async def _computes(self) -> bool:
        assert self.batcher is not None
        now = self._clock()
        latest = self.batcher.last_success
        if latest is not None and now - latest <= FRESH_SECONDS:
            return True
        if self._probe is None or not self._probe.inputs:
            return True
        inputs = [(PROBE, self._probe.inputs[0])]
        try:
            (outcome,) = await self.batcher.compute(inputs, now + PROBE_SECONDS)
        except AssayError:
            return False
        return not isinstance(outcome.value, AssayError)


def _fingerprints(model: RewardModel, card: ModelCard) -> dict[Options, str]:
    choices = product(get_args(Truncation), (False, True))
    return {
        options: fingerprint_of({"raw": model.fingerprint, "card": card.options, "for": options})
        for options in (Options(truncation, raw) for truncation, raw in choices)
    }


def _self_test(
    model: RewardModel, prepared: Prepared, expected: float, tolerance: float
) -> SelfTest:
    raws: list[Raw] = []
    if prepared.inputs:
        computed = model.predict(prepared.inputs)
        assert not hasattr(computed, "__await__"), "a device model is synchronous"
        raws = list(computed)
    (score,) = model.finish(prepared, raws, Options())
    return SelfTest(expected, score.score, tolerance)
