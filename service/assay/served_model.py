"""ServedModel: one model of this process, from loading and self-test to shutdown."""

import asyncio
import logging
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.errors import AssayError, EngineFailed, ModelFailed, ModelNotFound, ModelNotReady
from assay.fingerprints import plain_fingerprints, served_fingerprint
from assay.metrics import Metrics
from assay.model_state import Failed, Loading, Unloaded
from assay.proofs import Proofs, create_proofs, proof_of
from assay.self_test import (
    SelfTest,
    SelfTestFailed,
    prepare_example,
    score_example,
    unscored,
)
from assay.types import Clock
from assay_models.base import Input, ItemError, Options, Prepared, Raw, RewardModel
from assay_models.card import CardError, ModelCard
from assay_models.registry import Family, Runtime, family_of
from assay_models.remote import RemoteCallFailed, require_raws
from assay_models.repository import ModelFiles, ModelRepository, RepositoryEntry

logger = logging.getLogger(__name__)

PROBE = b"probe"
DEVICE_THREAD = "device"
FRESH_SECONDS = 10.0
PROBE_SECONDS = 10.0
RETRY_SECONDS = 2.0
WAIT_HINT = "repeat it after the seconds of Retry-After, or wait: GET /v1/models/{model}?wait=30"
# A reason names addresses, paths or programs of the machine: it is not for everyone who scores.
REASON_HINT = "the server's log and, with a key that may read, GET /v1/models/{model} say why"


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded, and has computed its card's example if the card has one.

    `probe` is the prepared example, or the family's, which readiness computes again;
    `raw_fingerprint` is the model's, `fingerprints` are those of the options without numbers.
    `raw_lengths` are the lengths of raws that were computed here: a cached raw of another length is
    not used, once there are any.
    """

    card: ModelCard
    model: RewardModel
    batcher: DynamicBatcher
    probe: Prepared
    raw_fingerprint: str
    fingerprints: Mapping[Options, str]
    raw_lengths: set[int] = field(default_factory=set)
    name: Literal["ready"] = "ready"

    def fingerprint(self, options: Options) -> str:
        """Return the digest of all that decides a number served with these options."""
        known = self.fingerprints.get(options)
        return (
            served_fingerprint(self.raw_fingerprint, self.card, options) if known is None else known
        )


State = Loading | Ready | Failed | Unloaded


class ServedModel:
    """A card, and the state of its model: `Loading`, then `Ready` or `Failed`.

    Args:
        entry: the card and its folder.
        limits: bounds of batches and of the queue.
        metrics: the series of the process.
        clock: monotonic seconds.
        load_timeout: seconds after which a model that is still loading has failed.
        on_death: called once, with the reason, when a model that was ready can compute no more.
        create_batcher: the batcher's class, or one that records traces too.

    Raises:
        CardError: the card names no family.
    """

    def __init__(
        self,
        *,
        entry: RepositoryEntry,
        limits: BatchLimits,
        metrics: Metrics,
        clock: Clock,
        load_timeout: float = math.inf,
        on_death: Callable[[str], None] = logger.critical,
        create_batcher: Callable[..., DynamicBatcher] = DynamicBatcher,
    ) -> None:
        self.id: str = entry.card.id
        self.card: ModelCard = entry.card
        self.family: Family = family_of(entry.card)
        self.state: State = Loading()
        self.self_test: SelfTest | None = None
        self.in_flight = 0
        """The scoring requests that use it."""
        self.created = int((entry.folder / "card.toml").stat().st_mtime)
        self._entry = entry
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._load_timeout = load_timeout
        self._on_death = on_death
        self._create_batcher = create_batcher
        self._probing: asyncio.Task[bool] | None = None
        self._suspect_since: float | None = None
        self._probe_fault = ""
        self._loading: asyncio.Task[None] | None = None
        self._has_lock = self._is_closing = False
        self._files = ModelFiles(entry.folder, None)
        self._changed: Path | None = None
        self._proofs: Proofs | None = None
        self._when_proven: Callable[[], None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{DEVICE_THREAD} {entry.card.id}")

    def start(self, repository: ModelRepository, runtime: Runtime, load_lock: asyncio.Lock) -> None:
        """Start to load in the background. Call once, inside the event loop.

        Args:
            repository: the repository that holds the model's files.
            runtime: device, dtype and determinism.
            load_lock: held while a model loads, so that models load one after the other: the
                imports of torch and transformers are not safe from several threads at once.
        """
        self._loading = asyncio.create_task(self._load_and_test(repository, runtime, load_lock))
        self._loading.add_done_callback(self._on_loaded)

    @property
    def failure(self) -> str | None:
        """The reason why the model could not be loaded; None if it is loading or ready."""
        return self.state.reason if isinstance(self.state, Failed) else None

    @property
    def unproven(self) -> str | None:
        """The reason why its engine's numbers are not served; None while they are, or without."""
        if self._proofs is None or not isinstance(self.state, Ready):
            return None
        return self._proofs.unproven

    @property
    def was_proven(self) -> bool:
        """Whether its engine was proven at least once; False for a model without an engine."""
        return self._proofs is not None and self._proofs.was_proven

    async def loaded(self) -> bool:
        """Wait until the model is ready or has failed; return whether it is ready."""
        assert self._loading is not None, "start() comes first"
        await asyncio.wait({self._loading})
        return isinstance(self.state, Ready)

    def when_proven(self, call: Callable[[], None]) -> None:
        """Call once the loaded model's numbers are served: now, or after the first proof."""
        if self.unproven is None:
            call()
        else:
            self._when_proven = call

    def require_ready(self) -> Ready:
        """Return the loaded model.

        Raises:
            ModelNotReady: it is still loading, or its engine is not proven.
            ModelFailed: it could not be loaded.
            ModelNotFound: it was unloaded.
        """
        state = self.state
        if isinstance(state, Failed):
            raise ModelFailed(f"{self.id} could not be loaded", hint=REASON_HINT)
        if isinstance(state, Loading):
            hint = WAIT_HINT.format(model=self.id)
            raise ModelNotReady(f"{self.id} is loading", hint=hint, retry_after=RETRY_SECONDS)
        if isinstance(state, Unloaded):
            raise ModelNotFound(f"{self.id} was unloaded")
        if self.unproven is not None:
            unproven = f"{self.id} is not proven"
            raise ModelNotReady(unproven, hint=REASON_HINT, retry_after=RETRY_SECONDS)
        return state

    async def is_computing(self) -> bool:
        """Return whether the model computes.

        It does if a batch completed recently, if the device is computing and has not hung, or if a
        probe completes now. Concurrent calls share one probe. It does not count as computing once
        one of its files was changed: its scores stay those of the files that were loaded, and a
        replica that starts now would serve others.
        """
        state = self.state
        computes = self.unproven is None and isinstance(state, Ready) and state.batcher.alive
        computes = isinstance(state, Ready) and computes and await self._computes(state)
        computes = computes and await self.is_current()
        self._metrics.ready.labels(self.id).set(computes)
        return computes

    @property
    def condition(self) -> str:
        """The reason why `is_computing` was false."""
        if self.unproven is not None:
            return f"not proven: {self.unproven}"
        if self._changed is not None:
            return f"changed on disk: {self._changed} is not the file that was loaded"
        if self.card.engine and isinstance(self.state, Ready) and self.state.batcher.alive:
            return f"its engine does not answer: {self._probe_fault}"
        return "not computing"

    async def is_current(self) -> bool:
        """Return whether the files are those that were loaded."""
        changed = await asyncio.to_thread(self._files.stamps.changed)
        if changed is not None and self._changed is None:
            self._changed = changed
            logger.error("%s is %s: restart, or deploy a new folder", self.id, self.condition)
        return self._changed is None

    async def close(self, timeout: float) -> None:
        """Finish the admitted items, within `timeout` seconds, and end the device thread.

        A model that has not begun to load does not begin any more. A thread that loads one is
        waited for, an engine's proof is not.
        """
        self._is_closing = True
        if self._loading is not None:
            if self._has_lock:
                await asyncio.wait({self._loading}, timeout=timeout)
            if not self._has_lock:  # else its thread goes on, and no other may load meanwhile
                self._loading.cancel()
                await asyncio.wait({self._loading})
        if isinstance(self.state, Ready):
            await self.state.batcher.close(timeout)
        if self._proofs is not None:
            await self._proofs.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _load_and_test(
        self, repository: ModelRepository, runtime: Runtime, load_lock: asyncio.Lock
    ) -> None:
        async with load_lock:
            self._has_lock = True
            try:
                model, probe = await self._load_on_thread(repository, runtime)
                raws = await self._self_test(model, probe) if proof_of(model) is None else []
            finally:
                self._has_lock = False
        self._proofs = create_proofs(
            model, self.card.example, probe, on_proven=self._on_proven, on_death=self._on_death
        )
        if self._is_closing:
            return
        if self._proofs is not None:
            await self._proofs.start(self._load_timeout)
        self.state = self._ready(model, probe)
        self.state.raw_lengths.update(map(len, raws))
        logger.info("%s is %s", self.id, "ready" if self.unproven is None else "not proven")

    async def _load_on_thread(
        self, repository: ModelRepository, runtime: Runtime
    ) -> tuple[RewardModel, Prepared]:
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(self._thread, self._load, repository, runtime)
        done, _ = await asyncio.wait({loading}, timeout=self._load_timeout)
        if not done:  # its thread goes on; another model may load now
            raise CardError(f"loading took more than {self._load_timeout:g} seconds")
        return loading.result()

    def _ready(self, model: RewardModel, probe: Prepared) -> Ready:
        """Return the state of a loaded model, with a batcher that is started."""
        raw = model.fingerprint
        fingerprints = plain_fingerprints(raw, self.card)
        batcher = self._create_batcher(
            name=self.id,
            predict=model.predict,
            thread=self._thread if model.runs == "device" else None,
            limits=self._limits,
            metrics=self._metrics,
            clock=self._clock,
            cost=model.cost,
            on_death=self._on_death,
        )
        batcher.start()
        return Ready(self.card, model, batcher, probe, raw, fingerprints)

    def _on_proven(self) -> None:
        self._renew()
        call, self._when_proven = self._when_proven, None
        if call is not None:
            call()

    def _renew(self) -> None:
        """Serve under a new fingerprint, with a batcher of its own, once another engine is proven.

        What the old batcher holds fails: its numbers belong to the old fingerprint.
        """
        old = self.state
        if not isinstance(old, Ready) or old.model.fingerprint == old.raw_fingerprint:
            return
        self.state = self._ready(old.model, old.probe)
        logger.warning("%s: another engine was proven, its fingerprint is new", self.id)
        text = "another engine was proven before this item was computed"
        old.batcher.abandon(EngineFailed(text, retry_after=1.0))
        self._closing = asyncio.create_task(old.batcher.close(0.0))

    def _on_loaded(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        expected = isinstance(error, CardError | SelfTestFailed | RemoteCallFailed)
        reason = str(error) if expected else f"loading raised {type(error).__name__}"
        self.state = Failed(reason)
        cause = None if expected else error
        logger.error("%s failed to load: %s", self.id, reason, exc_info=cause)
        _clear_frames(error)

    def _load(self, repository: ModelRepository, runtime: Runtime) -> tuple[RewardModel, Prepared]:
        self._files = repository.locate(self._entry)
        model = self.family.load(self.card, self._files, runtime)
        return model, prepare_example(model, self.card, self.family)

    async def _self_test(self, model: RewardModel, probe: Prepared) -> Sequence[Raw]:
        """Compute the card's example; return its raws, none without an example.

        Raises:
            SelfTestFailed: its score is not the card's.
        """
        example = self.card.example
        if example is None:
            return []
        try:
            raws = await self._predict(model, probe.inputs) if probe.inputs else []
        except ItemError as error:
            raise unscored(error) from error
        self.self_test = test = score_example(model, example, probe, raws)
        if not test.passed:
            raise SelfTestFailed(
                f"the card's example scores {test.got:.6g}, the card says "
                f"{test.expected:.6g} within {test.tolerance:g}"
            )
        return raws

    async def _predict(self, model: RewardModel, inputs: Sequence[Input]) -> Sequence[Raw]:
        if model.runs == "device":
            loop = asyncio.get_running_loop()
            raws = await loop.run_in_executor(self._thread, model.predict, inputs)
            assert not isinstance(raws, Awaitable), "a device model is synchronous"
            return raws
        pending = model.predict(inputs)
        assert isinstance(pending, Awaitable), "a remote model is asynchronous"
        return require_raws(await pending)

    async def _computes(self, ready: Ready) -> bool:
        batcher = ready.batcher
        if batcher.hung:
            return False
        if self._is_fresh(batcher) or not ready.probe.inputs:
            return True
        if self._probing is None or self._probing.done():
            if batcher.computing and not self._is_suspect(batcher):
                return True
            probe = (PROBE, ready.probe.inputs[0])
            self._probing = asyncio.create_task(self._run_probe(batcher, probe))
        probing = self._probing
        await asyncio.wait({probing})
        return probing.result()

    def _is_fresh(self, batcher: DynamicBatcher) -> bool:
        latest = batcher.last_success
        return latest is not None and abs(self._clock() - latest) <= FRESH_SECONDS

    def _is_suspect(self, batcher: DynamicBatcher) -> bool:
        """Return whether a probe has failed since the last success."""
        since, latest = self._suspect_since, batcher.last_success
        return since is not None and (latest is None or latest <= since)

    async def _run_probe(self, batcher: DynamicBatcher, probe: tuple[bytes, Input]) -> bool:
        try:
            deadline = self._clock() + PROBE_SECONDS
            (outcome,) = await batcher.compute([probe], deadline, "interactive")
            fault = outcome.value
        except AssayError as error:
            fault = error
        if isinstance(fault, AssayError):
            self._suspect_since, self._probe_fault = self._clock(), fault.detail
        return not isinstance(fault, AssayError)


def _clear_frames(error: BaseException | None) -> None:
    """Free what an error's frames hold, such as a model that was read in part."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
