"""DynamicBatcher: admit, queue, form, dispatch, settle. One per model.

A request is admitted whole or not at all. While the device computes, the next batch gathers itself;
an idle device never waits. Every future is settled exactly once, on every path.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from assay.errors import (
    AssayError,
    DeadlineExceeded,
    InferenceFailed,
    NonFiniteScore,
    Overloaded,
    RequestTooLarge,
    ShuttingDown,
)
from assay.metrics import Metrics
from assay_models.base import DeviceOutOfMemory, Input, Raw

Predict = Callable[[Sequence[Input]], Sequence[Raw] | Awaitable[Sequence[Raw]]]
Clock = Callable[[], float]

WINDOW = 1024
RATE_SMOOTHING = 0.2


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one batch (tokens with padding, rows) and of all that may wait (true tokens)."""

    max_batch_tokens: int
    max_batch_size: int
    max_queue_tokens: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input: its raw, or why there is none.

    `shared` tells that another waiter had asked for the same key before.
    """

    value: Raw | AssayError
    shared: bool
    queue_seconds: float
    predict_seconds: float


@dataclass(slots=True, eq=False)
class _Entry:
    key: bytes
    input: Input
    deadline: float
    enqueued: float
    settled: asyncio.Future[Raw | AssayError]
    waiters: int = 0
    started: float | None = None
    finished: float | None = None


@dataclass(slots=True)
class _State:
    entries: dict[bytes, _Entry] = field(default_factory=dict)
    waiting: OrderedDict[bytes, _Entry] = field(default_factory=OrderedDict)
    tokens: int = 0
    tokens_per_second: float | None = None
    last_success: float | None = None
    closing: bool = False


class DynamicBatcher:
    """Turns single inputs into batches for one `predict`.

    Args:
        name: the model's, for the metrics.
        predict: gives one raw for each input, in order. Called on `device`, unless it returns an
            awaitable, which is then awaited.
        device: the model's one thread; None where `predict` is asynchronous.
        limits: of batches and of the queue.
        metrics: where counts go.
        clock: monotonic seconds, the same as the deadlines'.
    """

    def __init__(
        self,
        name: str,
        predict: Predict,
        device: Executor | None,
        limits: BatchLimits,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._name = name
        self._predict = predict
        self._device = device
        self._limits = limits
        self._batch_tokens = limits.max_batch_tokens
        self._metrics = metrics
        self._clock = clock
        self._state = _State()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to compute. Call once, inside the event loop."""
        self._task = asyncio.create_task(self._run(), name=f"batcher {self._name}")
        self._task.add_done_callback(self._on_stop)

    @property
    def alive(self) -> bool:
        """Whether the loop that forms batches still runs."""
        return self._task is not None and not self._task.done()

    @property
    def last_success(self) -> float | None:
        """When a batch last completed, by the clock."""
        return self._state.last_success

    @property
    def pending_tokens(self) -> int:
        """Tokens admitted and not yet settled."""
        return self._state.tokens

    async def compute(
        self, inputs: Sequence[tuple[bytes, Input]], deadline: float
    ) -> list[Outcome]:
        """The raws of keyed inputs, in order; inputs that failed carry their error instead.

        Identical keys, here or in the air, are computed once. When the caller is cancelled, or the
        deadline passes, what nobody else awaits is dropped before it costs compute.

        Raises:
            Overloaded: there is no room for all of them now; nothing was admitted.
            RequestTooLarge: there never will be.
            ShuttingDown: the batcher admits nothing more.
        """
        tickets = self._admit(inputs, deadline)
        try:
            if tickets:
                futures = {entry.settled for entry, _ in tickets}
                await asyncio.wait(futures, timeout=max(0.0, deadline - self._clock()))
        finally:
            for entry, _ in tickets:
                self._release(entry)
        return [_outcome(entry, shared) for entry, shared in tickets]

    async def close(self, timeout: float) -> None:
        """Admit nothing more, finish what was admitted, and stop.

        What is still unfinished after `timeout` seconds is settled with `ShuttingDown`.
        """
        self._state.closing = True
        self._wake.set()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=timeout)
            if not done:
                self._task.cancel()
                await asyncio.wait({self._task})
        self._settle_all(ShuttingDown("the server stopped before this item was computed"))

    def _admit(
        self, inputs: Sequence[tuple[bytes, Input]], deadline: float
    ) -> list[tuple[_Entry, bool]]:
        state = self._state
        if state.closing or not self.alive:
            raise ShuttingDown("the model takes no more work", retry_after=1.0)
        new = {key: one for key, one in inputs if key not in state.entries}
        self._check_room(sum(one.tokens for one in new.values()))
        now = self._clock()
        loop = asyncio.get_running_loop()
        for key, one in new.items():
            entry = _Entry(key, one, deadline, now, loop.create_future())
            state.entries[key] = state.waiting[key] = entry
            state.tokens += one.tokens
        tickets = []
        for key, _ in inputs:
            entry = state.entries[key]
            tickets.append((entry, entry.waiters > 0))
            entry.waiters += 1
            entry.deadline = max(entry.deadline, deadline)
        self._count_queue()
        self._wake.set()
        return tickets

    def _check_room(self, tokens: int) -> None:
        limit = self._limits.max_queue_tokens
        if tokens > limit:
            raise RequestTooLarge(
                f"the request needs {tokens} tokens, the queue holds {limit}",
                hint="split the request",
            )
        excess = self._state.tokens + tokens - limit
        if excess > 0:
            self._metrics.refused.labels(self._name).inc()
            rate = self._state.tokens_per_second
            raise Overloaded(
                f"{self._state.tokens} tokens are waiting and {tokens} more do not fit",
                hint="try again after Retry-After, or send fewer items at once",
                retry_after=excess / rate if rate else 1.0,
            )

    def _release(self, entry: _Entry) -> None:
        entry.waiters -= 1
        if entry.waiters == 0 and entry.started is None and not entry.settled.done():
            expired = entry.deadline <= self._clock()
            self._drop(entry, "expired" if expired else "abandoned")

    def _drop(self, entry: _Entry, reason: str) -> None:
        self._metrics.dropped.labels(self._name, reason).inc()
        self._settle(entry, DeadlineExceeded("the deadline passed before this item was computed"))

    def _settle(self, entry: _Entry, value: Raw | AssayError) -> None:
        if entry.settled.done():
            return
        entry.finished = self._clock()
        entry.settled.set_result(value)
        self._state.entries.pop(entry.key, None)
        self._state.waiting.pop(entry.key, None)
        self._state.tokens -= entry.input.tokens
        self._count_queue()

    def _settle_all(self, error: AssayError) -> None:
        for entry in list(self._state.entries.values()):
            self._settle(entry, error)

    def _on_stop(self, task: asyncio.Task[None]) -> None:
        broken = not task.cancelled() and task.exception() is not None
        if broken:
            self._settle_all(InferenceFailed("the model's worker stopped"))

    def _count_queue(self) -> None:
        self._metrics.queue_tokens.labels(self._name).set(self._state.tokens)

    async def _run(self) -> None:
        while True:
            batch = self._form()
            if batch:
                await self._compute(batch)
            elif self._state.closing:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    def _form(self) -> list[_Entry]:
        now = self._clock()
        window = list(islice(self._state.waiting.values(), WINDOW))
        for entry in window:
            if entry.deadline <= now:
                self._drop(entry, "expired")
        alive = [entry for entry in window if not entry.settled.done()]
        batch = nearest_in_length(alive, self._batch_tokens, self._limits.max_batch_size)
        for entry in batch:
            del self._state.waiting[entry.key]
            entry.started = now
            waited = now - entry.enqueued
            self._metrics.phase_seconds.labels(self._name, "queue").observe(waited)
        return batch

    async def _compute(self, batch: list[_Entry]) -> None:
        parts = [batch]
        while parts:
            part = [entry for entry in parts.pop() if not entry.settled.done()]
            if part:
                parts.extend(await self._forward(part))

    async def _forward(self, part: list[_Entry]) -> list[list[_Entry]]:
        """Compute and settle one part; the parts to try again where it failed as a whole."""
        began = self._clock()
        try:
            raws = await self._call([entry.input for entry in part])
        except DeviceOutOfMemory:
            self._batch_tokens = max(1, self._batch_tokens // 2)
            return self._split(part, "out_of_memory", "the device has no memory for this item")
        except Exception as error:  # noqa: BLE001 a family may raise anything; only this batch may suffer
            return self._split(part, "failed", f"the model raised {type(error).__name__}")
        self._count_forward(part, began)
        for entry, raw in zip(part, raws, strict=True):
            finite = all(map(math.isfinite, raw))
            self._settle(entry, raw if finite else NonFiniteScore("the model gave NaN or infinity"))
        return []

    async def _call(self, inputs: list[Input]) -> list[Raw]:
        if self._device is None:
            pending = self._predict(inputs)
            assert isinstance(pending, Awaitable), "a model without a device thread is asynchronous"
            return _checked(await pending, len(inputs))
        loop = asyncio.get_running_loop()
        work = partial(_predict_here, self._predict, inputs)
        return await loop.run_in_executor(self._device, work)

    def _split(self, part: list[_Entry], outcome: str, reason: str) -> list[list[_Entry]]:
        self._metrics.forwards.labels(self._name, outcome).inc()
        if len(part) == 1:
            self._settle(part[0], InferenceFailed(f"{reason}, even on this item alone"))
            return []
        half = len(part) // 2
        return [part[half:], part[:half]]

    def _count_forward(self, part: list[_Entry], began: float) -> None:
        now = self._clock()
        seconds = now - began
        tokens = sum(entry.input.tokens for entry in part)
        padded = len(part) * max(entry.input.tokens for entry in part)
        self._metrics.forwards.labels(self._name, "ok").inc()
        self._metrics.batch_size.labels(self._name).observe(len(part))
        self._metrics.tokens.labels(self._name).inc(tokens)
        self._metrics.padded_tokens.labels(self._name).inc(padded)
        self._metrics.phase_seconds.labels(self._name, "predict").observe(seconds)
        self._state.last_success = now
        rate = tokens / max(seconds, 1e-6)
        known = self._state.tokens_per_second
        self._state.tokens_per_second = (
            rate if known is None else known + RATE_SMOOTHING * (rate - known)
        )


def nearest_in_length(waiting: Sequence[_Entry], max_tokens: int, max_size: int) -> list[_Entry]:
    """The longest-waiting entry and the entries nearest to it in length, as many as fit.

    A batch of n rows costs n times its longest row, and that product stays within `max_tokens`; the
    oldest entry goes in whatever its length, so that nothing starves.

    Args:
        waiting: entries, oldest first.
        max_tokens: of the batch, padding counted.
        max_size: rows of the batch.
    """
    if not waiting:
        return []
    oldest = waiting[0].input.tokens
    by_distance = sorted(waiting, key=lambda entry: abs(entry.input.tokens - oldest))
    batch: list[_Entry] = []
    longest = oldest
    for entry in by_distance[:max_size]:
        longer = max(longest, entry.input.tokens)
        if batch and (len(batch) + 1) * longer > max_tokens:
            break
        batch.append(entry)
        longest = longer
    return batch


def _outcome(entry: _Entry, shared: bool) -> Outcome:
    if not entry.settled.done():
        late = DeadlineExceeded("the deadline passed while this item was computed")
        return Outcome(late, shared, 0.0, 0.0)
    started = entry.started if entry.started is not None else entry.finished
    started, finished = started or entry.enqueued, entry.finished or entry.enqueued
    return Outcome(
        entry.settled.result(), shared, max(0.0, started - entry.enqueued), finished - started
    )


def _predict_here(predict: Predict, inputs: list[Input]) -> list[Raw]:
    """Runs on the device thread, which no exception may end."""
    try:
        raws = predict(inputs)
    except (KeyboardInterrupt, SystemExit) as error:
        raise RuntimeError(f"the model raised {type(error).__name__}") from error
    assert not isinstance(raws, Awaitable), "a model on a device thread is synchronous"
    return _checked(raws, len(inputs))


def _checked(raws: Sequence[Raw], expected: int) -> list[Raw]:
    if len(raws) != expected:
        raise ValueError(f"the model gave {len(raws)} raws for {expected} inputs")
    return [tuple(float(number) for number in raw) for raw in raws]
