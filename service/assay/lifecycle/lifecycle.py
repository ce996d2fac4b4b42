"""ModelLifecycle: models are loaded, promoted and unloaded while the server runs."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

from assay.errors import InvalidRequest, ModelNotFound, SettingsError, ShuttingDown
from assay.lifecycle.errors import (
    InvalidCard,
    ModelExists,
    ModelIsDefault,
    ModelIsLast,
    ModelIsShadowed,
    ModelUnloading,
)
from assay.lifecycle.memory import (
    CPU_OVERHEAD,
    DEVICE_OVERHEAD,
    Available,
    available_bytes,
    check_memory,
)
from assay.lifecycle.release import end_device_thread, return_memory
from assay.lifecycle.table import ModelTable
from assay.model_state import Failed, Loading, Unloaded
from assay.served_model import Ready, ServedModel
from assay_models.card import CardError
from assay_models.registry import Runtime, device_memory
from assay_models.repository import CardUnreadable, ModelRepository, RepositoryEntry
from assay_models.repository import ModelNotFound as CardNotFound
from assay_models.weight_sizes import estimate_bytes

logger = logging.getLogger(__name__)

OnDeath = Callable[[str], None]
CreateModel = Callable[[RepositoryEntry, OnDeath], ServedModel]


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """A model to load, `name@version` or the highest version of a bare name.

    `shadow_of` is the served model whose items it scores too. `default`: it becomes the default of
    its bare name as soon as it is ready.
    """

    model: str
    shadow_of: str | None = None
    default: bool = False


@dataclass(frozen=True, slots=True)
class LifecycleLimits:
    """Seconds in which a model must be loaded, and in which one that is unloaded is drained."""

    load_timeout: float
    drain_timeout: float


class ModelLifecycle:
    """The changes of the served models.

    Models load one after the other. Its methods are called in the event loop.

    Args:
        table: the served models.
        create: returns the served model of a card.
        open_repository: reads all cards anew.
        runtime: device, dtype and determinism.
        limits: seconds for a load and for a drain.
        on_death: called with the reason when a model that requests name can compute no more.
        end_shadow: called with the id of a shadow that is one no longer.
        on_unloaded: called with the id of a model that was unloaded, to release what others keep.
        trim: returns the free memory of the process to the system; None where that is impossible.
    """

    def __init__(
        self,
        table: ModelTable,
        *,
        create: CreateModel,
        open_repository: Callable[[], ModelRepository],
        runtime: Runtime,
        limits: LifecycleLimits,
        on_death: OnDeath,
        end_shadow: Callable[[str], None],
        on_unloaded: Callable[[str], None],
        trim: Callable[[], None] | None,
    ) -> None:
        self.table = table
        self._create = create
        self._open_repository = open_repository
        self._runtime = runtime
        self._limits = limits
        self._on_death = on_death
        self._end_shadow = end_shadow
        self._on_unloaded = on_unloaded
        self._trim = trim
        self._load_lock = asyncio.Lock()
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._reserved: dict[str, int] = {}
        self._future_defaults: set[str] = set()
        self._is_closing = self._is_ending = False
        self._waits: WeakSet[asyncio.Timeout] = WeakSet()

    def start(self, repository: ModelRepository) -> None:
        """Start to load the models that the table has."""
        for served in self.table.models():
            served.start(repository, self._runtime, self._load_lock)

    async def load(self, order: LoadOrder) -> ServedModel:
        """Begin to load a model of the repository, which is read anew.

        A model that failed is loaded again. One that is served in the wanted role stays as it is.

        Raises:
            ModelNotFound: no card has that name, or no served model that of `shadow_of`.
            InvalidCard: the card cannot be used.
            InvalidRequest: it cannot be a shadow, or that of this model.
            ModelExists: it is served in another role.
            ModelUnloading: it is being unloaded.
            InsufficientMemory: it does not fit into memory.
            ShuttingDown: the server stops.
        """
        repository, entry, needed = await asyncio.to_thread(self._read, order.model)
        # From here on nothing awaits: no other change comes between the checks and this one.
        model = entry.card.id
        if self._is_closing:
            raise ShuttingDown("the server is stopping")
        if model in self.table.unloading:
            raise ModelUnloading(f"{model} is being unloaded", hint="load it once that is done")
        primary = None if order.shadow_of is None else self._primary(order, model)
        present = self.table.names.get(model)
        if present is not None and not isinstance(present.state, Failed):
            return self._keep(present, order, primary)
        self._check_memory(model, needed)
        served = self._new_model(entry, primary)
        if present is not None:
            self._drop_failed(present)
        self.table.add(served, shadow_of=primary.id if primary else None)
        self._reserved[model] = needed or 0
        if order.default:
            self._future_defaults.add(model)
        served.start(repository, self._runtime, self._load_lock)
        self._run(model, self._finish_load(served, is_shadow=primary is not None))
        return served

    def promote(self, model: str) -> ServedModel:
        """Make a model the default of its bare name; it is no shadow from then on.

        Raises:
            ModelNotFound: it is not served.
            ModelUnloading: it is being unloaded.
            ModelNotReady: it is loading, or could not be loaded.
        """
        served = self._find(model)
        if model in self.table.unloading:
            hint = "load it again, then promote it"
            raise ModelUnloading(f"{model} is being unloaded", hint=hint)
        served.require_ready()
        self.table.promote(served)
        self._future_defaults -= {model, *self.table.others_of(served)}
        self._end_shadow(model)
        logger.info("%s is the default of %s", model, served.card.name)
        return served

    def unload(self, model: str) -> ServedModel:
        """Begin to unload a model: no request can name it any more, those admitted are finished.

        Raises:
            ModelNotFound: it is not served.
            ModelIsLast: no other one is ready.
            ModelIsDefault: its bare name refers to it, and to other versions.
            ModelIsShadowed: another model shadows it.
        """
        served = self._find(model)
        if model in self.table.unloading:
            return served
        self._check_dispensable(served)
        self.table.remove(served)
        self._end_shadow(model)
        self._future_defaults.discard(model)
        self._run(model, self._unload(served))
        return served

    async def wait(self, served: ServedModel, seconds: float) -> None:
        """Wait until a model is neither loading nor unloading, or `seconds` have passed.

        It ends at once when the server is to stop.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(0.0 if self._is_ending else seconds) as bound:
                self._waits.add(bound)
                if isinstance(served.state, Loading) and served.id not in self.table.unloading:
                    await served.loaded()
                tasks = [task for task, model in self._tasks.items() if model == served.id]
                if tasks:
                    await asyncio.wait(tasks)

    def end_waits(self) -> None:
        """Let nothing wait for a model any more: the server is to stop."""
        self._is_ending = True
        now = asyncio.get_running_loop().time()
        for bound in self._waits:
            with suppress(RuntimeError):  # it has ended
                bound.reschedule(now)

    async def close(self, timeout: float) -> None:
        """Finish what the models admitted, within `timeout` seconds, and stop them."""
        self._is_closing = True
        await self.abort(timeout)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def abort(self, timeout: float = 0.0) -> None:
        """Settle all items that the models admitted, after `timeout` seconds."""
        models = [*self.table.models(), *self.table.unloading.values()]
        await asyncio.gather(*(served.close(timeout) for served in models))

    def _read(self, model: str) -> tuple[ModelRepository, RepositoryEntry, int | None]:
        try:
            repository = self._open_repository()
            entry = repository.find(model)
            needed = estimate_bytes(entry, self._runtime.dtype)
        except CardUnreadable as error:
            raise InvalidCard(str(error)) from error
        except CardNotFound as error:
            hint = "put its folder below one of ASSAY_REPOSITORY"
            raise ModelNotFound(str(error), hint=hint) from error
        except SettingsError as error:
            raise InvalidCard(error.detail, hint=error.hint) from error
        except (CardError, OSError, ValueError) as error:
            raise InvalidCard(f"{model}: {error}") from error
        return repository, entry, needed

    def _primary(self, order: LoadOrder, model: str) -> ServedModel:
        if order.default:
            raise InvalidRequest(
                "default: a shadow is no default version", hint="load it as a shadow, promote it"
            )
        primary = self.table.names.get(order.shadow_of or "")
        if primary is None:
            raise self.table.not_found(order.shadow_of or "")
        if primary.id == model:
            raise InvalidRequest(f"shadow_of: {model} cannot shadow itself")
        if self.table.primary_of(primary.id) is not None:
            raise InvalidRequest(
                f"shadow_of: {primary.id} is a shadow itself", hint="shadow the model that it does"
            )
        return primary

    def _keep(
        self, served: ServedModel, order: LoadOrder, primary: ServedModel | None
    ) -> ServedModel:
        shadowed = self.table.primary_of(served.id)
        becomes_default = served.id in self._future_defaults or self.table.is_default(served)
        is_default = not order.default or becomes_default
        if shadowed == (primary and primary.id) and is_default:
            return served
        raise ModelExists(
            f"{served.id} is {served.state.name} already"
            + (f", as a shadow of {shadowed}" if shadowed else ""),
            hint="promote it to make it the default version, or unload it first",
        )

    def _new_model(self, entry: RepositoryEntry, primary: ServedModel | None) -> ServedModel:
        model = entry.card.id
        try:
            served = self._create(entry, lambda reason: self._on_model_death(served, reason))
        except (CardError, OSError) as error:
            raise InvalidCard(f"{model}: {error}") from error
        if primary is not None and served.family.item is not primary.family.item:
            raise InvalidRequest(
                f"shadow_of: {model} takes other items than {primary.id}",
                hint="a shadow scores the same items: its family must take them",
            )
        return served

    def _drop_failed(self, served: ServedModel) -> None:
        """Take out a model that failed, in whose place another one comes."""
        self.table.remove(served)
        self.table.forget(served)
        self._end_shadow(served.id)
        self._run(served.id, served.close(0.0))

    def _check_memory(self, model: str, needed: int | None) -> None:
        name = self._runtime.device
        available: Available = available_bytes
        overhead = CPU_OVERHEAD
        if name != "cpu":
            device, overhead = device_memory(name), DEVICE_OVERHEAD
            available = partial(device.free_bytes, name) if device else lambda: None
        check_memory(model, needed, sum(self._reserved.values()), available, overhead)

    def _on_model_death(self, served: ServedModel, reason: str) -> None:
        """Stop the server if a model that requests name can compute no more.

        A shadow, and a model that is being unloaded, just ends.
        """
        is_served = self.table.names.get(served.id) is served
        if is_served and self.table.primary_of(served.id) is None:
            self._on_death(reason)
            return
        logger.error("%s ended: %s", served.id, reason)
        if is_served:
            served.state = Failed(reason)
            self._end_shadow(served.id)

    async def _finish_load(self, served: ServedModel, *, is_shadow: bool) -> None:
        is_ready = await served.loaded()
        self._reserved.pop(served.id, None)
        if served.id in self.table.unloading:
            return
        if not is_ready:
            self._future_defaults.discard(served.id)
            await asyncio.to_thread(self._return_memory)
        elif not is_shadow:
            served.when_proven(partial(self._require, served))
        gc.freeze()

    def _require(self, served: ServedModel) -> None:
        """Let readiness depend on a model that was loaded; it becomes the default if it is to."""
        if self.table.names.get(served.id) is not served:
            return
        if served.id in self._future_defaults:
            self.promote(served.id)
        else:
            self.table.require(served)

    def _find(self, model: str) -> ServedModel:
        served = self.table.unloading.get(model) or self.table.names.get(model)
        if served is None:
            raise self.table.not_found(model)
        if served.id != model:
            raise InvalidRequest(
                f"model: {model} has no version", hint=f"name one, such as {served.id}"
            )
        return served

    def _check_dispensable(self, served: ServedModel) -> None:
        rest = [other for other in self.table.models() if other is not served]
        serves = isinstance(served.state, Ready)
        if not rest or (serves and not any(isinstance(other.state, Ready) for other in rest)):
            raise ModelIsLast(
                f"{served.id} is the only model that is ready",
                hint="load another one first, or stop the server",
            )
        others = self.table.others_of(served)
        if others and self.table.is_default(served):
            raise ModelIsDefault(
                f"{served.card.name} refers to {served.id}",
                hint=f"promote another version first: {', '.join(others)}",
            )
        shadows = [shadow.id for shadow in self.table.shadowed.get(served.id, ())]
        if shadows:
            raise ModelIsShadowed(
                f"{', '.join(shadows)} shadows {served.id}", hint="promote or unload the shadow"
            )

    async def _unload(self, served: ServedModel) -> None:
        began = time.monotonic()
        await self.table.idle(served, self._limits.drain_timeout)
        left = max(0.0, self._limits.drain_timeout - (time.monotonic() - began))
        # A load that has begun cannot be interrupted; the next one waits for it.
        is_loading = isinstance(served.state, Loading)
        await served.close(self._limits.load_timeout if is_loading else left)
        served.state = Unloaded()
        await asyncio.to_thread(end_device_thread, served.id)
        self._on_unloaded(served.id)
        self.table.forget(served)
        await asyncio.to_thread(self._return_memory)
        logger.info("%s was unloaded", served.id)

    def _return_memory(self) -> None:
        device = device_memory(self._runtime.device)
        return_memory(device.release_memory if device else _nothing, self._trim)

    def _run(self, model: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = model
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        model = self._tasks.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("%s: %s", model, type(error).__name__, exc_info=error)


def _nothing() -> None:
    """Release nothing: there is no device with memory of its own."""
