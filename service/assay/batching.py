"""DynamicBatcher: admit, queue, form, dispatch, settle. One per model.

While the device computes, the next batch gathers itself; once a whole one has gathered it is
staged, so that the device goes on without a pause. An idle device never waits. Every input is
settled exactly once, on every path.
"""

import asyncio
import logging
import math
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from assay.device import (
    AwaitedDevice,
    Budget,
    Call,
    Clock,
    Device,
    Forward,
    Job,
    Outcome,
    Predict,
    ThreadDevice,
)
from assay.errors import (
    AssayError,
    DeadlineExceeded,
    InferenceFailed,
    NonFiniteScore,
    Overloaded,
    RequestTooLarge,
    ShuttingDown,
)
from assay.metrics import BatcherSeries, Metrics
from assay.queueing import Batch, Cost, Lane, Pace, Queue, padded_cost
from assay_models.base import DeviceOutOfMemory, Input, ItemError, Raw

__all__ = ["BatchLimits", "Clock", "DynamicBatcher", "Outcome", "Predict"]

logger = logging.getLogger(__name__)

HANG_SECONDS = 120.0
LONGEST_RETRY_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one batch (its cost in tokens, rows) and of all that may wait (true tokens)."""

    max_batch_tokens: int
    max_batch_size: int
    max_queue_tokens: int


class DynamicBatcher:
    """Turns single inputs into batches for one `predict`. `Queue` tells their order.

    Args:
        name: the model's, for the metrics.
        predict: gives one raw for each input, in order. Called on `device`, unless it returns an
            awaitable, which is then awaited.
        device: the model's one thread; None where `predict` is asynchronous.
        limits: of batches and of the queue.
        metrics: where counts go.
        clock: monotonic seconds, the same as the deadlines'.
        cost: tokens that one `predict` of some inputs computes; never falls as inputs are added.
        on_death: told once, and why, if the batcher can compute no more though nobody closed it:
            its loop broke, or the device takes no work. All that was admitted has then failed.
        hang_seconds: a forward pass that runs longer than this has hung.
    """

    def __init__(
        self,
        name: str,
        predict: Predict,
        device: Executor | None,
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
        self._pace = Pace()
        self._queue: Queue[Job] = Queue(cost, limits.max_queue_tokens, self._pace)
        self._wake = asyncio.Event()
        self._device: Device = (
            AwaitedDevice(predict, clock, self._wake.set)
            if device is None
            else ThreadDevice(predict, clock, self._wake.set, device)
        )
        self._retries: list[Batch[Job]] = []
        self._jobs: dict[bytes, Job] = {}
        self._failing = False
        self._last_success: float | None = None
        self._closing = False
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to compute. Call once, inside the event loop."""
        self._loop = asyncio.get_running_loop()
        self._series.budget.set(self._budget.now)
        self._task = self._loop.create_task(self._run(), name=f"batcher {self._name}")
        self._task.add_done_callback(self._on_stop)

    @property
    def alive(self) -> bool:
        """Whether the loop that forms batches still runs."""
        return self._task is not None and not self._task.done()

    @property
    def last_success(self) -> float | None:
        """When a batch last completed, by the clock."""
        return self._last_success

    @property
    def pending_tokens(self) -> int:
        """Tokens admitted and not yet settled."""
        return self._queue.tokens

    @property
    def stuck_seconds(self) -> float:
        """How long the forward pass on the device has been running; 0 when there is none."""
        return self._device.stuck_seconds

    @property
    def hung(self) -> bool:
        """Whether the forward pass on the device has been running for too long."""
        return self.stuck_seconds > self._hang_seconds

    @property
    def computing(self) -> bool:
        """Whether the device is at work and its latest forward pass went well."""
        return not self._device.idle and not self._failing and self._last_success is not None

    async def compute(
        self, inputs: Sequence[tuple[bytes, Input]], deadline: float, lane: Lane = "training"
    ) -> list[Outcome]:
        """The raws of keyed inputs, in order; inputs that failed carry their error instead.

        Identical keys, here or in the air, are computed once, in the highest lane that asked. When
        the caller is cancelled, or the deadline passes, what nobody else awaits is dropped before
        it costs compute.

        Raises:
            Overloaded: there is no room for all of them now; nothing was admitted.
            RequestTooLarge: there never will be.
            ShuttingDown: the batcher admits nothing more.
        """
        if not inputs:
            return []
        call, tickets = self._admit(inputs, deadline, lane)
        timer = self._loop.call_later(max(0.0, deadline - self._clock()), call.expire)
        try:
            await call.woken
        finally:
            timer.cancel()
            for job, _ in tickets:
                self._release(job, call)
        return [job.outcome(shared) for job, shared in tickets]

    async def close(self, timeout: float) -> None:
        """Admit nothing more, finish what was admitted, and stop.

        What is still unfinished after `timeout` seconds is settled with `ShuttingDown`.
        """
        self._closing = True
        self._wake.set()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=timeout)
            if not done:
                self._task.cancel()
                await asyncio.wait({self._task})
        await self._device.stop()
        self._settle_all(ShuttingDown("the server stopped before this item was computed"))

    def _admit(
        self, inputs: Sequence[tuple[bytes, Input]], deadline: float, lane: Lane
    ) -> tuple[Call, list[tuple[Job, bool]]]:
        if self._closing or not self.alive:
            raise ShuttingDown("the model takes no more work", retry_after=1.0)
        new = {key: one for key, one in inputs if key not in self._jobs}
        self._check_room(sum(one.tokens for one in new.values()), lane)
        now = self._clock()
        if not self._jobs:
            self._pace.resume(now)
        for key, one in new.items():
            job = self._jobs[key] = Job(one, lane, deadline, now, key=key)
            self._queue.add(job)
        call = Call(self._loop.create_future(), len(inputs))
        tickets = [self._join(self._jobs[key], call, deadline, lane) for key, _ in inputs]
        self._series.queue_tokens.set(self._queue.tokens)
        self._recall(lane)
        if self._device.free or self._may_stage():
            self._wake.set()
        return call, tickets

    def _join(self, job: Job, call: Call, deadline: float, lane: Lane) -> tuple[Job, bool]:
        shared = bool(job.calls)
        job.calls.append(call)
        job.deadline = max(job.deadline, deadline)
        self._queue.promote(job, lane)
        return job, shared

    def _check_room(self, tokens: int, lane: Lane) -> None:
        room = self._queue.room(lane)
        if tokens > room:
            raise RequestTooLarge(
                f"the request needs {tokens} tokens, the queue holds {room} of its lane",
                hint="split the request",
            )
        excess = self._queue.excess(tokens, lane)
        if tokens and excess > 0:
            self._series.refused.inc()
            drain = self._pace.drain
            raise Overloaded(
                f"{self._queue.tokens} tokens are waiting and {tokens} more do not fit",
                hint="try again after Retry-After, or send fewer items at once",
                retry_after=min(excess / drain, LONGEST_RETRY_AFTER) if drain else 1.0,
            )

    def _recall(self, lane: Lane) -> None:
        staged = self._device.recall(lane)
        if staged is not None:
            self._queue.put_back(staged, (job for job in staged.entries if job.value is None))
            self._wake.set()

    def _release(self, job: Job, call: Call) -> None:
        if job.value is not None:
            return
        job.calls.remove(call)
        if not job.calls and job.started is None:
            self._drop(job, "expired" if call.late else "abandoned")
        elif not job.calls:
            self._device.stop_unwanted()

    def _drop(self, job: Job, reason: str) -> None:
        self._series.dropped[reason].inc()
        late = DeadlineExceeded("the deadline passed before this item was computed")
        self._settle(job, late, self._clock())
        self._series.queue_tokens.set(self._queue.tokens)

    def _settle(self, job: Job, value: Raw | AssayError, now: float) -> None:
        if job.value is not None:
            return
        job.value, job.finished = value, now
        del self._jobs[job.key]
        self._queue.release(job)
        for call in job.calls:
            call.settle_one()

    def _settle_all(self, error: AssayError) -> None:
        for job in list(self._jobs.values()):
            self._settle(job, error, self._clock())
        self._series.queue_tokens.set(self._queue.tokens)

    def _on_stop(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._closing and error is None:
            return
        self._settle_all(InferenceFailed("the model's worker stopped"))
        self._on_death(f"{self._name} can compute no more: {_cause(error)}")

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            while (forward := self._device.ended()) is not None:
                self._land(forward)
            while (batch := self._next()) is not None:
                self._device.submit(batch, self._loop)
            if self._closing and self._device.idle:
                return
            await self._wake.wait()

    def _may_stage(self) -> bool:
        return (
            self._device.stages
            and not self._retries
            and self._queue.holds_full_batch(self._budget.now, self._limits.max_batch_size)
        )

    def _next(self) -> Batch[Job] | None:
        if not self._device.free and not self._may_stage():
            return None
        if self._retries:
            return self._retries.pop()
        batch = self._queue.form(self._clock(), self._budget.now, self._limits.max_batch_size)
        for job in batch.expired:
            self._drop(job, "expired")
        return batch if batch.entries else None

    def _land(self, forward: Forward) -> None:
        error = forward.error()
        stopped = forward.stopped and forward.future.cancelled()
        self._leave_out([*forward.left, *forward.live] if stopped else forward.left)
        if stopped or not forward.live:
            return
        cost = self._cost([job.input for job in forward.live])
        self._count_waits(forward)
        if error is None:
            self._succeed(forward, cost)
        elif isinstance(error, DeviceOutOfMemory):
            self._budget.exceeded(cost)
            told = InferenceFailed("the device has no memory for this item, even for it alone")
            self._split(forward, "out_of_memory", told)
        else:
            self._split(forward, "failed", _told(error))
        self._series.budget.set(self._budget.now)
        self._series.queue_tokens.set(self._queue.tokens)

    def _leave_out(self, left: Sequence[Job]) -> None:
        """Drop what was not computed, except for what somebody has asked for again since."""
        now = self._clock()
        again = [job for job in left if job.wanted(now)]
        for job in left:
            if job.value is None and job not in again:
                self._drop(job, "expired" if job.calls else "abandoned")
        if again:
            self._retries.append(Batch(again, []))

    def _succeed(self, forward: Forward, cost: int) -> None:
        for job, raw in zip(forward.live, forward.future.result(), strict=True):
            finite = all(map(math.isfinite, raw))
            value = raw if finite else NonFiniteScore("the model gave NaN or infinity")
            self._settle(job, value, forward.ended)
        tokens = sum(job.input.tokens for job in forward.live)
        seconds = max(0.0, forward.ended - (forward.began or 0.0))
        self._pace.count(tokens, seconds, forward.ended, self._budget.is_full(cost))
        self._budget.held(cost)
        self._failing, self._last_success = False, forward.ended
        self._series.forwards["ok"].inc()
        self._series.batch_size.observe(len(forward.live))
        self._series.tokens.inc(tokens)
        self._series.padded_tokens.inc(cost)
        self._series.predict_seconds.observe(seconds)

    def _split(self, forward: Forward, outcome: str, alone: AssayError) -> None:
        self._failing = True
        self._series.forwards[outcome].inc()
        part = forward.live
        if len(part) == 1:
            self._settle(part[0], alone, forward.ended)
            return
        half = len(part) // 2
        self._retries += [Batch(part[half:], []), Batch(part[:half], [])]

    def _count_waits(self, forward: Forward) -> None:
        for job in forward.live:
            if job.started is not None and job.started == forward.began:
                waited = max(0.0, job.started - job.enqueued)
                self._series.queue_phase.observe(waited)
                self._series.queue_seconds[job.lane].observe(waited)


def _told(error: BaseException) -> AssayError:
    """What the caller of an item is told on which, alone, the model raised this."""
    if not isinstance(error, ItemError):
        return InferenceFailed(f"the model raised {type(error).__name__}, even on this item alone")
    told = InferenceFailed(error.detail)
    told.code = error.code
    return told


def _cause(error: BaseException | None) -> str:
    """Where the loop broke; not the exception's text, which may quote an item."""
    if error is None:
        return "its batcher was cancelled"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, line {frame.lineno} of {frame.filename}"
