"""ServedModel: one model in this process, from loading and self-test to the last forward pass."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

from assay.batching import BatchLimits, DynamicBatcher
from assay.errors import AssayError
from assay.metrics import Metrics
from assay_models.base import (
    Input,
    ItemError,
    Options,
    Prepared,
    Raw,
    RewardModel,
    Truncation,
)
from assay_models.card import CardError, ModelCard
from assay_models.registry import Family, Runtime, family_of
from assay_models.repository import Entry, ModelRepository, fingerprint_of

logger = logging.getLogger(__name__)

PROBE = b"probe"
DEVICE_THREAD = "device"
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
    with `failure` saying why. `fingerprints` are those of the options without numbers. `on_death`
    is told, once, that a model which was ready can compute no more.
    """

    def __init__(
        self,
        entry: Entry,
        limits: BatchLimits,
        metrics: Metrics,
        clock: Callable[[], float],
        on_death: Callable[[str], None] = logger.critical,
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
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._on_death = on_death
        self._probe: Prepared | None = None
        self._probing: asyncio.Task[bool] | None = None
        self._doubted: float | None = None
        self._loading: asyncio.Task[None] | None = None
        self._device = ThreadPoolExecutor(1, thread_name_prefix=f"{DEVICE_THREAD} {entry.card.id}")

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
        """Whether the model computes: a batch completed lately, the device is at work and has not
        hung, or a probe completes now. However many ask, there is one probe at a time."""
        batcher = self.batcher
        computes = batcher is not None and batcher.alive and await self._computes(batcher)
        self._metrics.ready.labels(self.id).set(computes)
        return computes

    def fingerprint(self, options: Options) -> str:
        """The digest of all that decides a number which is served with these options."""
        assert self.model is not None, "a model that is loading has none"
        return _fingerprint(self.model, self.card, options)

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
            await self._examine(model)
        self.batcher = DynamicBatcher(
            self.id,
            model.predict,
            self._device if model.runs == "device" else None,
            self._limits,
            self._metrics,
            self._clock,
            model.cost,
            self._on_death,
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
        return model

    async def _examine(self, model: RewardModel) -> None:
        example = self.card.example
        if example is None or self._probe is None:
            return
        raws: Sequence[Raw] = []
        if self._probe.inputs:
            raws = await self._predicted(model, self._probe.inputs)
        (score,) = model.finish(self._probe, raws, Options())
        self.self_test = test = SelfTest(example.score, score.score, example.tolerance)
        if not test.passed:
            raise SelfTestFailed(
                f"the card's example scores {test.got:.6g}, the card says "
                f"{test.expected:.6g} within {test.tolerance:g}"
            )

    async def _predicted(self, model: RewardModel, inputs: Sequence[Input]) -> Sequence[Raw]:
        if model.runs == "device":
            loop = asyncio.get_running_loop()
            raws = await loop.run_in_executor(self._device, model.predict, inputs)
            assert not isinstance(raws, Awaitable), "a device model is synchronous"
            return raws
        pending = model.predict(inputs)
        assert isinstance(pending, Awaitable), "a remote model is asynchronous"
        try:
            return await pending
        except ItemError as error:
            raise SelfTestFailed(f"the card's example has no score: {error.detail}") from error

    async def _computes(self, batcher: DynamicBatcher) -> bool:
        if batcher.hung:
            return False
        if self._is_fresh(batcher) or self._probe is None or not self._probe.inputs:
            return True
        if self._probing is None or self._probing.done():
            if batcher.computing and not self._is_doubted(batcher):
                return True
            probe = (PROBE, self._probe.inputs[0])
            self._probing = asyncio.create_task(self._try(batcher, probe))
        probing = self._probing
        await asyncio.wait({probing})
        return probing.result()

    def _is_fresh(self, batcher: DynamicBatcher) -> bool:
        latest = batcher.last_success
        return latest is not None and abs(self._clock() - latest) <= FRESH_SECONDS

    def _is_doubted(self, batcher: DynamicBatcher) -> bool:
        """Whether a probe has failed since the last success."""
        latest = batcher.last_success
        return self._doubted is not None and (latest is None or latest <= self._doubted)

    async def _try(self, batcher: DynamicBatcher, probe: tuple[bytes, Input]) -> bool:
        try:
            deadline = self._clock() + PROBE_SECONDS
            (outcome,) = await batcher.compute([probe], deadline, "interactive")
            works = not isinstance(outcome.value, AssayError)
        except AssayError:
            works = False
        if not works:
            self._doubted = self._clock()
        return works


def _fingerprints(model: RewardModel, card: ModelCard) -> dict[Options, str]:
    choices = product(get_args(Truncation), (False, True))
    plain = [Options(truncation, raw) for truncation, raw in choices]
    return {options: _fingerprint(model, card, options) for options in plain}


def _fingerprint(model: RewardModel, card: ModelCard, options: Options) -> str:
    return fingerprint_of({"raw": model.fingerprint, "card": card.options, "for": options})
