"""DynamicBatcher: admit, queue, form, execute, settle. One per model.

While the device computes, the next batch gathers; once a full one has gathered it is staged, so
that the device continues without a pause. An idle device never waits. Every entry is settled
exactly once, on every path.
"""

import asyncio
import concurrent.futures
import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay.batching.entry import Entry, Outcome, Waiter, call_failure, item_failure, value_of
from assay.batching.executor import (
    MAX_AWAITED,
    AsyncExecutor,
    Budget,
    Executor,
    InFlightBatch,
    Predict,
    ThreadExecutor,
)
from assay.batching.scheduler import Batch, Cost, Scheduler, ThroughputEstimator, padded_cost
from assay.errors import (
    AssayError,
    DeadlineExceeded,
    InferenceFailed,
    Overloaded,
    RequestTooLarge,
    ShuttingDown,
)
from assay.metrics import BatcherSeries, Metrics
from assay.types import Clock, Lane
from assay_models.base import DeviceOutOfMemory, Input, ItemError, Raw
from assay_models.remote import RemoteCallFailed

logger = logging.getLogger(__name__)

HANG_SECONDS = 120.0
MAX_RETRY_AFTER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one batch (its cost in tokens, rows), of all that may wait (true tokens), and of
    the awaited forward passes side by side."""

    max_batch_tokens: int
    max_batch_size: int
    max_queue_tokens: int
    max_awaited: int = MAX_AWAITED


class DynamicBatcher:
    """Batcher of single inputs for one `predict`; the `Scheduler` decides their order.

    Args:
        name: the model's id, for the metrics.
        predict: returns one raw for each input, in order. Called on `thread`, unless it returns an
            awaitable, which is then awaited.
        thread: the model's device thread, an executor with one worker; None if `predict` is
            asynchronous.
        limits: bounds of batches and of the queue.
        metrics: the series of the process.
        clock: monotonic seconds, the same clock as the deadlines'.
        cost: tokens that one `predict` of some inputs computes; never falls as inputs are added.
        on_death: called once, with the reason, if the batcher can no longer compute though it was
            not closed: its loop broke, or the device accepts no work. All entries have then failed.
        hang_seconds: a forward pass that runs longer than this has hung.
    """

    awaited_executor: ClassVar[type[AsyncExecutor]] = AsyncExecutor

    def __init__(
        self,
        *,
        name: str,
        predict: Predict,
        thread: concurrent.futures.Executor | None,
        limits: BatchLimits,
        metrics: Metrics,
        clock: Clock,
        cost: Cost = padded_cost,
        on_death: Callable[[str], None] = logger.critical,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self._name = name
        self._limits = limits
        self._series = BatcherSeries(metrics, name)
        self._clock = clock
        self._cost = cost
        self._on_death = on_death
        self._hang_seconds = hang_seconds
        self._budget = Budget(limits.max_batch_tokens)
        self._throughput = ThroughputEstimator()
        self._scheduler: Scheduler[Entry] = Scheduler(
            cost, limits.max_queue_tokens, self._throughput
        )
        self._wake = asyncio.Event()
        self._executor: Executor = (
            self.awaited_executor(predict, clock, self._wake.set, limits.max_awaited)
            if thread is None
            else ThreadExecutor(predict, clock, self._wake.set, thread)
        )
        self._retries: list[Batch[Entry]] = []
        self._entries: dict[bytes, Entry] = {}
        self._failing = False
        self._last_success: float | None = None
        self._closing = False
        self._refusal: AssayError = ShuttingDown("the model takes no more work", retry_after=1.0)
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start forming batches. Call once, inside the event loop."""
        self._loop = asyncio.get_running_loop()
        self._series.budget.set(self._budget.tokens)
        self._task = self._loop.create_task(self._run(), name=f"batcher {self._name}")
        self._task.add_done_callback(self._on_stop)

    @property
    def alive(self) -> bool:
        """Whether the loop that forms batches still runs."""
        return self._task is not None and not self._task.done()

    @property
    def last_success(self) -> float | None:
        """The clock's time at which a batch last completed; None before the first."""
        return self._last_success

    @property
    def pending_tokens(self) -> int:
        """Tokens admitted and not yet settled."""
        return self._scheduler.tokens

    @property
    def stuck_seconds(self) -> float:
        """Seconds for which the current forward pass has been running; 0 when there is none."""
        return self._executor.stuck_seconds

    @property
    def hung(self) -> bool:
        """Whether the forward pass on the device has been running for too long."""
        return self.stuck_seconds > self._hang_seconds

    @property
    def computing(self) -> bool:
        """Whether a forward pass is running and the latest one succeeded."""
        return not self._executor.is_idle and not self._failing and self._last_success is not None

    async def compute(
        self, inputs: Sequence[tuple[bytes, Input]], deadline: float, lane: Lane = "training"
    ) -> list[Outcome]:
        """Return the outcomes of keyed inputs, in order; one that failed carries its error.

        Identical keys, here or in flight, are computed once, in the highest lane that asked. When
        the caller is cancelled, or the deadline passes, entries without another waiter are dropped
        before they cost compute.

        Raises:
            Overloaded: the queue has no room for all of them now; nothing was admitted.
            RequestTooLarge: the queue can never hold all of them.
            ShuttingDown: the batcher admits no more inputs.
        """
        if not inputs:
            return []
        waiter, admitted = self._admit(inputs, deadline, lane)
        timer = self._loop.call_later(max(0.0, deadline - self._clock()), waiter.expire)
        try:
            await waiter.woken
        finally:
            timer.cancel()
            for entry, _ in admitted:
                self._release(entry, waiter)
        return [entry.outcome(shared) for entry, shared in admitted]

    def abandon(self, refusal: AssayError) -> None:
        """Refuse more inputs with this error, and settle the admitted ones with it at once."""
        self._closing, self._refusal = True, refusal
        self._settle_all(refusal)

    async def close(self, timeout: float) -> None:
        """Admit no more inputs, finish the admitted ones, and stop.

        Inputs unfinished after `timeout` seconds are settled with `ShuttingDown`.
        """
        self._closing = True
        self._wake.set()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=timeout)
            if not done:
                self._task.cancel()
                await asyncio.wait({self._task})
        await self._executor.stop()
        self._settle_all(ShuttingDown("the server stopped before this item was computed"))

    def _admit(
        self, inputs: Sequence[tuple[bytes, Input]], deadline: float, lane: Lane
    ) -> tuple[Waiter, list[tuple[Entry, bool]]]:
        if self._closing or not self.alive:
            raise self._refusal
        new = {key: row for key, row in inputs if key not in self._entries}
        self._check_room(sum(row.tokens for row in new.values()), lane)
        now = self._clock()
        if not self._entries:
            self._throughput.resume(now)
        for key, row in new.items():
            entry = self._entries[key] = Entry(row, lane, deadline, now, key)
            self._scheduler.add(entry)
        waiter = Waiter(self._loop.create_future(), len(inputs))
        admitted = [self._join(self._entries[key], waiter, deadline, lane) for key, _ in inputs]
        self._series.queue_tokens.set(self._scheduler.tokens)
        self._recall(lane)
        if self._executor.is_free or self._may_stage():
            self._wake.set()
        return waiter, admitted

    def _join(
        self, entry: Entry, waiter: Waiter, deadline: float, lane: Lane
    ) -> tuple[Entry, bool]:
        shared = bool(entry.waiters)
        entry.waiters.append(waiter)
        entry.deadline = max(entry.deadline, deadline)
        self._scheduler.promote(entry, lane)
        return entry, shared

    def _check_room(self, tokens: int, lane: Lane) -> None:
        room = self._scheduler.room(lane)
        if tokens > room:
            raise RequestTooLarge(
                f"the request needs {tokens} tokens, the queue holds {room} of its lane",
                hint="split the request",
            )
        excess = self._scheduler.excess(tokens, lane)
        if tokens and excess > 0:
            self._series.refused.inc()
            rate = self._throughput.drain_rate
            raise Overloaded(
                f"{self._scheduler.tokens} tokens are waiting and {tokens} more do not fit",
                hint="try again after Retry-After, or send fewer items at once",
                retry_after=min(excess / rate, MAX_RETRY_AFTER_SECONDS) if rate else 1.0,
            )

    def _recall(self, lane: Lane) -> None:
        staged = self._executor.recall(lane)
        if staged is not None:
            waiting = (entry for entry in staged.entries if entry.value is None)
            self._scheduler.put_back(staged, waiting)
            self._wake.set()

    def _release(self, entry: Entry, waiter: Waiter) -> None:
        if entry.value is not None:
            return
        entry.waiters.remove(waiter)
        if not entry.waiters and entry.started is None:
            self._drop(entry, "expired" if waiter.is_late else "abandoned")
        elif not entry.waiters:
            self._executor.cancel_unwanted()

    def _drop(self, entry: Entry, reason: str) -> None:
        self._series.dropped[reason].inc()
        late = DeadlineExceeded("the deadline passed before this item was computed")
        self._settle(entry, late, self._clock())
        self._series.queue_tokens.set(self._scheduler.tokens)

    def _settle(self, entry: Entry, value: Raw | AssayError, now: float) -> None:
        if entry.value is not None:
            return
        entry.value, entry.finished = value, now
        del self._entries[entry.key]
        self._scheduler.release(entry)
        for waiter in entry.waiters:
            waiter.settle_one()

    def _settle_all(self, error: AssayError) -> None:
        for entry in list(self._entries.values()):
            self._settle(entry, error, self._clock())
        self._series.queue_tokens.set(self._scheduler.tokens)

    def _on_stop(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._closing and error is None:
            return
        self._settle_all(InferenceFailed("the model's worker stopped"))
        self._on_death(f"{self._name} can compute no more: {_cause(error)}")

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            while (in_flight := self._executor.pop_ended()) is not None:
                self._finish(in_flight)
            while (batch := self._next()) is not None:
                self._executor.submit(batch, self._loop)
            if self._closing and self._executor.is_idle:
                return
            await self._wake.wait()

    def _may_stage(self) -> bool:
        return (
            self._executor.can_stage
            and not self._retries
            and self._scheduler.holds_full_batch(self._budget.tokens, self._limits.max_batch_size)
        )

    def _next(self) -> Batch[Entry] | None:
        if not self._executor.is_free and not self._may_stage():
            return None
        if self._retries:
            return self._retries.pop()
        size = self._limits.max_batch_size
        batch = self._scheduler.form(self._clock(), self._budget.tokens, size)
        for entry in batch.expired:
            self._drop(entry, "expired")
        return batch if batch.entries else None

    def _finish(self, in_flight: InFlightBatch) -> None:
        error = in_flight.error()
        stopped = in_flight.is_stopped and in_flight.future.cancelled()
        unfinished = [*in_flight.left_out, *in_flight.live] if stopped else in_flight.left_out
        self._leave_out(unfinished)
        if stopped or not in_flight.live:
            return
        cost = self._cost([entry.input for entry in in_flight.live])
        self._count_waits(in_flight)
        if error is None:
            self._succeed(in_flight, cost)
        elif isinstance(error, DeviceOutOfMemory):
            self._budget.record_out_of_memory(cost)
            alone = InferenceFailed("the device has no memory for this item, even for it alone")
            self._split(in_flight, "out_of_memory", alone)
        elif isinstance(error, RemoteCallFailed):
            self._fail(in_flight, error)
        else:
            self._split(in_flight, "failed", item_failure(error))
        self._series.budget.set(self._budget.tokens)
        self._series.queue_tokens.set(self._scheduler.tokens)

    def _leave_out(self, entries: Sequence[Entry]) -> None:
        """Drop entries that were not computed, except those that were requested again since."""
        now = self._clock()
        again = [entry for entry in entries if entry.is_wanted(now)]
        for entry in entries:
            if entry.value is None and entry not in again:
                self._drop(entry, "expired" if entry.waiters else "abandoned")
        if again:
            self._retries.append(Batch(again, []))

    def _succeed(self, in_flight: InFlightBatch, cost: int) -> None:
        results = in_flight.future.result()
        for entry, result in zip(in_flight.live, results, strict=True):
            self._settle(entry, value_of(result), in_flight.ended)
        tokens = sum(entry.input.tokens for entry in in_flight.live)
        seconds = max(0.0, in_flight.ended - (in_flight.began or 0.0))
        full = self._budget.is_full(cost)
        self._throughput.record(tokens, seconds, in_flight.ended, full)
        self._budget.record_success(cost)
        if not all(isinstance(result, ItemError) for result in results):
            self._failing, self._last_success = False, in_flight.ended
        self._series.forwards["ok"].inc()
        self._series.batch_size.observe(len(in_flight.live))
        self._series.tokens.inc(tokens)
        self._series.padded_tokens.inc(cost)
        self._series.predict_seconds.observe(seconds)

    def _fail(self, in_flight: InFlightBatch, error: RemoteCallFailed) -> None:
        """Settle a batch whose call to another server failed; that server's client has retried."""
        self._failing = True
        self._series.forwards["failed"].inc()
        for entry in in_flight.live:
            self._settle(entry, call_failure(error), in_flight.ended)

    def _split(self, in_flight: InFlightBatch, outcome: str, alone: AssayError) -> None:
        """Retry a failed batch in halves; settle a single entry with the error `alone`."""
        self._failing = True
        self._series.forwards[outcome].inc()
        entries = in_flight.live
        if len(entries) == 1:
            self._settle(entries[0], alone, in_flight.ended)
            return
        half = len(entries) // 2
        self._retries += [Batch(entries[half:], []), Batch(entries[:half], [])]

    def _count_waits(self, in_flight: InFlightBatch) -> None:
        for entry in in_flight.live:
            if entry.started is not None and entry.started == in_flight.began:
                waited = max(0.0, entry.started - entry.enqueued)
                self._series.queue_phase.observe(waited)
                self._series.queue_seconds[entry.lane].observe(waited)


def _cause(error: BaseException | None) -> str:
    """Return where the loop broke, without the exception's text, which may quote an item."""
    if error is None:
        return "its batcher was cancelled"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, line {frame.lineno} of {frame.filename}"
