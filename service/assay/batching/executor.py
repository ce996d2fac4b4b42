"""Executors of forward passes, on the model's device thread or awaited elsewhere, and their budget.

On the device thread one forward pass runs and another may be staged behind it, so that the device
continues without waiting for the event loop. Awaited forward passes run side by side.
"""

import asyncio
import concurrent.futures
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real

from assay.batching.entry import Entry
from assay.batching.scheduler import RANK, Batch
from assay.types import Clock, Lane
from assay_models import deadlines
from assay_models.base import Input, ItemError, Raw, Raws

Predict = Callable[[Sequence[Input]], Sequence[Raw] | Awaitable[Raws]]
Result = Raw | ItemError
Pending = concurrent.futures.Future[list[Result]] | asyncio.Task[list[Result]]

MAX_AWAITED = 64
STOP_SECONDS = 5.0
FULL_SHARE = 0.5
"""A batch is full when it costs more than this share of the budget."""
FULL_BATCHES_TO_GROW = 16
MAX_BATCHES_TO_GROW = 1024


class Budget:
    """Tokens that one batch may cost.

    Running out of memory halves the budget. It doubles again, up to `maximum`, after
    `FULL_BATCHES_TO_GROW` full batches without a failure; each time that growth fails, twice as
    many full batches are needed before the next attempt.

    Args:
        maximum: the initial budget in tokens, which is never exceeded.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = self.tokens = maximum
        self._needed = FULL_BATCHES_TO_GROW
        self._succeeded = 0

    def is_full(self, cost: int) -> bool:
        """Return whether a batch of this cost used most of the budget."""
        return cost > FULL_SHARE * self.tokens

    def record_out_of_memory(self, cost: int) -> None:
        """Halve the budget, unless the batch was formed under a higher one."""
        self._succeeded = 0
        if cost <= self.tokens and self.tokens > 1:
            if self.tokens < self.maximum:
                self._needed = min(2 * self._needed, MAX_BATCHES_TO_GROW)
            self.tokens //= 2

    def record_success(self, cost: int) -> None:
        """Count a batch that fitted in memory, and double the budget once enough have."""
        if self.tokens == self.maximum or not self.is_full(cost):
            return
        self._succeeded += 1
        if self._succeeded >= self._needed:
            self._succeeded = 0
            self.tokens = min(2 * self.tokens, self.maximum)


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """A batch, or a part of one that failed, on its way through an executor.

    When it begins, entries that are still wanted become `live`; the others are `left_out` before
    they cost compute. `is_stopped`: no entry was wanted any more, and it could be cancelled.
    """

    batch: Batch[Entry]
    submitted: float
    live: list[Entry] = field(default_factory=list)
    left_out: list[Entry] = field(default_factory=list)
    began: float | None = None
    ended: float = 0.0
    is_stopped: bool = False
    future: Pending = field(init=False)

    def begin(self, now: float) -> list[Input]:
        """Mark the forward pass as begun and return the inputs to compute."""
        for entry in self.batch.entries:
            (self.live if entry.is_wanted(now) else self.left_out).append(entry)
        for entry in self.live:
            if entry.started is None:
                entry.started = now
        self.began = self.ended = now
        return [entry.input for entry in self.live]

    def deadline(self) -> float:
        """Return the time after which no caller waits for any input of it."""
        return max(entry.deadline for entry in self.live)

    def error(self) -> BaseException | None:
        """Return what the finished forward pass raised, or None.

        Raises:
            RuntimeError: it never ran, because the device thread was shut down.
        """
        if not self.future.cancelled():
            return self.future.exception()
        if isinstance(self.future, asyncio.Task):
            return asyncio.CancelledError()
        raise RuntimeError("the device thread was shut down before the batch ran")


class Executor(ABC):
    """Executor of forward passes: the batcher submits batches and collects those that ended.

    Args:
        predict: the model's `predict`.
        clock: monotonic seconds.
        on_done: called in the event loop when a forward pass has ended.
    """

    def __init__(self, predict: Predict, clock: Clock, on_done: Callable[[], None]) -> None:
        self._predict = predict
        self._clock = clock
        self._on_done = on_done
        self._in_flight: deque[InFlightBatch] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return not self._in_flight

    @property
    @abstractmethod
    def is_free(self) -> bool:
        """Whether a batch that is submitted now begins now."""

    @property
    def can_stage(self) -> bool:
        """Whether a batch runs and one more may be staged behind it."""
        return False

    @property
    def stuck_seconds(self) -> float:
        """Seconds for which the oldest forward pass has been running; 0 when there is none."""
        if not self._in_flight:
            return 0.0
        first = self._in_flight[0]
        return max(0.0, self._clock() - (first.submitted if first.began is None else first.began))

    def submit(self, batch: Batch[Entry], loop: asyncio.AbstractEventLoop) -> None:
        """Run a batch now, or when the running one has ended.

        Raises:
            RuntimeError: the executor takes no more work.
        """
        in_flight = InFlightBatch(batch, self._clock())
        in_flight.future = self._start(in_flight, loop)
        self._in_flight.append(in_flight)

        def notify(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._on_done)

        in_flight.future.add_done_callback(notify)

    @abstractmethod
    def pop_ended(self) -> InFlightBatch | None:
        """Take out a forward pass that has ended, if there is one."""

    def recall(self, lane: Lane) -> Batch[Entry] | None:
        """Take back the staged batch if work of `lane` goes before it and it has not begun.

        A batch that leads by its lane's minimum share stays.
        """
        return None

    def cancel_unwanted(self) -> None:
        """Cancel forward passes that no caller waits for, where they can be cancelled."""
        return

    async def stop(self) -> None:
        """Start no more forward passes, and cancel those that can be cancelled."""
        for in_flight in self._in_flight:
            in_flight.future.cancel()

    @abstractmethod
    def _start(self, in_flight: InFlightBatch, loop: asyncio.AbstractEventLoop) -> Pending: ...


class ThreadExecutor(Executor):
    """Executor on the device thread: one forward pass at a time, in order of submission.

    A forward pass that runs there cannot be cancelled.
    """

    def __init__(
        self,
        predict: Predict,
        clock: Clock,
        on_done: Callable[[], None],
        thread: concurrent.futures.Executor,
    ) -> None:
        super().__init__(predict, clock, on_done)
        self._thread = thread

    @property
    def is_free(self) -> bool:
        """Whether nothing runs."""
        return self.is_idle

    @property
    def can_stage(self) -> bool:
        """Whether one batch runs and none is staged."""
        return len(self._in_flight) == 1

    def pop_ended(self) -> InFlightBatch | None:
        """Take out the first if it has ended; a cancelled staged one waits for the first."""
        if self._in_flight and self._in_flight[0].future.done():
            return self._in_flight.popleft()
        return None

    def recall(self, lane: Lane) -> Batch[Entry] | None:
        """See `Executor.recall`."""
        if len(self._in_flight) < 2:
            return None
        staged = self._in_flight[-1]
        if staged.batch.by_share or RANK[lane] >= RANK[staged.batch.lane]:
            return None
        if not staged.future.cancel():
            return None
        self._in_flight.pop()
        return staged.batch

    def _start(self, in_flight: InFlightBatch, loop: asyncio.AbstractEventLoop) -> Pending:
        return self._thread.submit(_compute, in_flight, self._predict, self._clock)


class AsyncExecutor(Executor):
    """Executor of awaited forward passes, of which `max_awaited` run side by side."""

    def __init__(
        self,
        predict: Predict,
        clock: Clock,
        on_done: Callable[[], None],
        max_awaited: int = MAX_AWAITED,
    ) -> None:
        super().__init__(predict, clock, on_done)
        self._max_awaited = max_awaited
        self._last_ended = float("-inf")

    @property
    def is_free(self) -> bool:
        """Whether fewer than `max_awaited` run."""
        return len(self._in_flight) < self._max_awaited

    @property
    def stuck_seconds(self) -> float:
        """Seconds for which the oldest has been running and none has ended; 0 without any."""
        return min(super().stuck_seconds, max(0.0, self._clock() - self._last_ended))

    def pop_ended(self) -> InFlightBatch | None:
        """Take out the oldest of those that have ended."""
        for in_flight in self._in_flight:
            if in_flight.future.done():
                self._in_flight.remove(in_flight)
                self._last_ended = self._clock()
                return in_flight
        return None

    def cancel_unwanted(self) -> None:
        """Cancel forward passes without a single waiting caller."""
        for in_flight in self._in_flight:
            if in_flight.live and not any(entry.waiters for entry in in_flight.live):
                in_flight.is_stopped = True
                in_flight.future.cancel()

    async def stop(self) -> None:
        """Cancel all forward passes, and wait up to `STOP_SECONDS` for them to end."""
        await super().stop()
        futures = [in_flight.future for in_flight in self._in_flight]
        tasks = [future for future in futures if isinstance(future, asyncio.Task)]
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)

    def _start(self, in_flight: InFlightBatch, loop: asyncio.AbstractEventLoop) -> Pending:
        return loop.create_task(self._await(in_flight))

    async def _await(self, in_flight: InFlightBatch) -> list[Result]:
        inputs = in_flight.begin(self._clock())
        if not inputs:
            return []
        deadlines.set_latest(in_flight.deadline)
        pending = self._predict(inputs)
        assert isinstance(pending, Awaitable), "a model without a device thread is asynchronous"
        try:
            return _check_raws(await pending, len(inputs))
        finally:
            in_flight.ended = self._clock()


def _compute(in_flight: InFlightBatch, predict: Predict, clock: Clock) -> list[Result]:
    """Compute a batch, on the device thread."""
    inputs = in_flight.begin(clock())
    if not inputs:
        return []
    try:
        raws = predict(inputs)
    finally:
        in_flight.ended = clock()
    assert not isinstance(raws, Awaitable), "a model on a device thread is synchronous"
    return _check_raws(raws, len(inputs))


def _check_raws(raws: Raws, expected: int) -> list[Result]:
    if len(raws) != expected:
        raise ValueError(f"the model returned {len(raws)} raws for {expected} inputs")
    return [raw if isinstance(raw, ItemError) else _numbers(raw) for raw in raws]


def _numbers(raw: Raw) -> Raw:
    plain = isinstance(raw, tuple | list) and all(isinstance(number, Real) for number in raw)
    if not plain or not raw:
        raise TypeError("the model returned something else than numbers")
    return tuple(float(number) for number in raw)
