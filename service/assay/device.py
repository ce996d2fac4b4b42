"""Device: forward passes on their way. One runs; another may be staged behind it, so that the
device goes on without waiting for the event loop. Those that are awaited run side by side.
"""

import asyncio
import concurrent.futures
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real

from assay.errors import AssayError, DeadlineExceeded
from assay.queueing import RANK, Batch, Entry, Lane
from assay_models.base import Input, Raw

Predict = Callable[[Sequence[Input]], Sequence[Raw] | Awaitable[Sequence[Raw]]]
Clock = Callable[[], float]
Pending = concurrent.futures.Future[list[Raw]] | asyncio.Task[list[Raw]]

AWAITED_AT_ONCE = 64
STOP_SECONDS = 5.0
FULL = 0.5
FULL_BATCHES_TO_GROW = 16
MOST_BATCHES_TO_GROW = 1024


@dataclass(slots=True, eq=False)
class Call:
    """One caller, woken when nothing is missing any more or when it is too late."""

    woken: asyncio.Future[None]
    missing: int
    late: bool = False

    def settle_one(self) -> None:
        """One of the caller's inputs has its outcome."""
        self.missing -= 1
        if not self.missing and not self.woken.done():
            self.woken.set_result(None)

    def expire(self) -> None:
        """The caller's deadline has passed."""
        self.late = True
        if not self.woken.done():
            self.woken.set_result(None)


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
class Job(Entry):
    """An input on its way, and who awaits it. `started` is written on the device thread, all else
    in the event loop."""

    key: bytes = b""
    calls: list[Call] = field(default_factory=list)
    value: Raw | AssayError | None = None
    started: float | None = None
    finished: float = 0.0

    def wanted(self, now: float) -> bool:
        """Whether computing it now is of use to anybody."""
        return self.value is None and bool(self.calls) and self.deadline > now

    def outcome(self, shared: bool) -> Outcome:
        """What a caller is told now; what is not settled came too late for him."""
        if self.value is None:
            late = DeadlineExceeded("the deadline passed while this item was computed")
            return Outcome(late, shared, 0.0, 0.0)
        started = self.finished if self.started is None else self.started
        waited, computed = started - self.enqueued, self.finished - started
        return Outcome(self.value, shared, max(0.0, waited), max(0.0, computed))


@dataclass(slots=True, eq=False)
class Forward:
    """A batch, or a part of one that failed, on its way through the device.

    When its turn comes, what is still wanted goes `live`, and the rest is `left` out before it
    costs compute. `stopped`: nobody wanted any of it any more, and it could be stopped.
    """

    batch: Batch[Job]
    submitted: float
    live: list[Job] = field(default_factory=list)
    left: list[Job] = field(default_factory=list)
    began: float | None = None
    ended: float = 0.0
    stopped: bool = False
    future: Pending = field(init=False)

    def begin(self, now: float) -> list[Input]:
        """Its turn has come; what to compute."""
        for job in self.batch.entries:
            (self.live if job.wanted(now) else self.left).append(job)
        for job in self.live:
            if job.started is None:
                job.started = now
        self.began = self.ended = now
        return [job.input for job in self.live]

    def error(self) -> BaseException | None:
        """What the finished forward pass raised.

        Raises:
            RuntimeError: it never ran, because the device's thread was taken away.
        """
        if not self.future.cancelled():
            return self.future.exception()
        if isinstance(self.future, asyncio.Task):
            return asyncio.CancelledError()
        raise RuntimeError("the device gave a batch back")


class Device(ABC):
    """Forward passes on their way to where they are computed.

    Args:
        predict: the model's.
        clock: monotonic seconds.
        on_done: called in the event loop when a forward pass has ended.
    """

    def __init__(self, predict: Predict, clock: Clock, on_done: Callable[[], None]) -> None:
        self._predict = predict
        self._clock = clock
        self._on_done = on_done
        self._forwards: deque[Forward] = deque()

    @property
    def idle(self) -> bool:
        """Whether nothing runs."""
        return not self._forwards

    @property
    @abstractmethod
    def free(self) -> bool:
        """Whether a forward pass that is submitted now begins now."""

    @property
    def stages(self) -> bool:
        """Whether something runs and one more batch may be staged behind it."""
        return False

    @property
    def stuck_seconds(self) -> float:
        """How long the oldest forward pass has been running; 0 when there is none."""
        if not self._forwards:
            return 0.0
        first = self._forwards[0]
        return max(0.0, self._clock() - (first.submitted if first.began is None else first.began))

    def submit(self, batch: Batch[Job], loop: asyncio.AbstractEventLoop) -> None:
        """Run a batch now, or when the one that runs has ended.

        Raises:
            RuntimeError: no more work is taken.
        """
        forward = Forward(batch, self._clock())
        forward.future = self._begun(forward, loop)
        self._forwards.append(forward)

        def tell(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._on_done)

        forward.future.add_done_callback(tell)

    @abstractmethod
    def ended(self) -> Forward | None:
        """A forward pass that has ended, taken out."""

    def recall(self, lane: Lane) -> Batch[Job] | None:
        """The staged batch, taken back, if work of `lane` goes before it and it has not begun. One
        that leads by its lane's share is let go."""
        return None

    def stop_unwanted(self) -> None:
        """Stop what nobody waits for any more, where that can be stopped."""
        return

    async def stop(self) -> None:
        """Begin nothing more, and end what can be ended."""
        for forward in self._forwards:
            forward.future.cancel()

    @abstractmethod
    def _begun(self, forward: Forward, loop: asyncio.AbstractEventLoop) -> Pending: ...


class ThreadDevice(Device):
    """Runs forward passes one after the other on an executor of one thread, in the order of
    submission. What runs there cannot be stopped."""

    def __init__(
        self,
        predict: Predict,
        clock: Clock,
        on_done: Callable[[], None],
        executor: concurrent.futures.Executor,
    ) -> None:
        super().__init__(predict, clock, on_done)
        self._executor = executor

    @property
    def free(self) -> bool:
        """Whether nothing runs."""
        return self.idle

    @property
    def stages(self) -> bool:
        """Whether one runs and none is staged."""
        return len(self._forwards) == 1

    def ended(self) -> Forward | None:
        """The first, if it has ended; a staged one may be given back while the first still runs."""
        if self._forwards and self._forwards[0].future.done():
            return self._forwards.popleft()
        return None

    def recall(self, lane: Lane) -> Batch[Job] | None:
        """See `Device.recall`."""
        if len(self._forwards) < 2:
            return None
        staged = self._forwards[-1]
        if staged.batch.by_share or RANK[lane] >= RANK[staged.batch.lane]:
            return None
        if not staged.future.cancel():
            return None
        self._forwards.pop()
        return staged.batch

    def _begun(self, forward: Forward, loop: asyncio.AbstractEventLoop) -> Pending:
        return self._executor.submit(_compute, forward, self._predict, self._clock)


class AwaitedDevice(Device):
    """Awaits forward passes side by side: what they wait for is elsewhere, and bounded there."""

    def __init__(self, predict: Predict, clock: Clock, on_done: Callable[[], None]) -> None:
        super().__init__(predict, clock, on_done)
        self._landed = float("-inf")

    @property
    def free(self) -> bool:
        """Whether fewer run than may."""
        return len(self._forwards) < AWAITED_AT_ONCE

    @property
    def stuck_seconds(self) -> float:
        """For how long the oldest has been running and none has ended; 0 when there is none."""
        return min(super().stuck_seconds, max(0.0, self._clock() - self._landed))

    def ended(self) -> Forward | None:
        """The oldest of those that have ended."""
        for forward in self._forwards:
            if forward.future.done():
                self._forwards.remove(forward)
                self._landed = self._clock()
                return forward
        return None

    def stop_unwanted(self) -> None:
        """Cancel those of which nobody waits for any part."""
        for forward in self._forwards:
            if forward.live and not any(job.calls for job in forward.live):
                forward.stopped = True
                forward.future.cancel()

    async def stop(self) -> None:
        """Cancel all, and wait a little for their ends."""
        await super().stop()
        tasks = [one.future for one in self._forwards if isinstance(one.future, asyncio.Task)]
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)

    def _begun(self, forward: Forward, loop: asyncio.AbstractEventLoop) -> Pending:
        return loop.create_task(self._await(forward))

    async def _await(self, forward: Forward) -> list[Raw]:
        inputs = forward.begin(self._clock())
        if not inputs:
            return []
        pending = self._predict(inputs)
        assert isinstance(pending, Awaitable), "a model without a device thread is asynchronous"
        try:
            return _checked(await pending, len(inputs))
        finally:
            forward.ended = self._clock()


class Budget:
    """Tokens that a batch may cost: halved when memory runs out, and doubled again, up to `most`,
    after some full batches without that; after twice as many each time the growth was in vain."""

    def __init__(self, most: int) -> None:
        self.most = self.now = most
        self._needed = FULL_BATCHES_TO_GROW
        self._passed = 0

    def is_full(self, cost: int) -> bool:
        """Whether a batch of this cost used most of the budget."""
        return cost > FULL * self.now

    def exceeded(self, cost: int) -> None:
        """Memory ran out. Of a batch formed under a higher budget that is no news."""
        self._passed = 0
        if cost <= self.now and self.now > 1:
            if self.now < self.most:
                self._needed = min(2 * self._needed, MOST_BATCHES_TO_GROW)
            self.now //= 2

    def held(self, cost: int) -> None:
        """A batch of this cost went well."""
        if self.now == self.most or not self.is_full(cost):
            return
        self._passed += 1
        if self._passed >= self._needed:
            self._passed = 0
            self.now = min(2 * self.now, self.most)


def _compute(forward: Forward, predict: Predict, clock: Clock) -> list[Raw]:
    """Runs on the device thread."""
    inputs = forward.begin(clock())
    if not inputs:
        return []
    try:
        raws = predict(inputs)
    finally:
        forward.ended = clock()
    assert not isinstance(raws, Awaitable), "a model on a device thread is synchronous"
    return _checked(raws, len(inputs))


def _checked(raws: Sequence[Raw], expected: int) -> list[Raw]:
    if len(raws) != expected:
        raise ValueError(f"the model gave {len(raws)} raws for {expected} inputs")
    return [_numbers(raw) for raw in raws]


def _numbers(raw: Raw) -> Raw:
    plain = isinstance(raw, tuple | list) and all(isinstance(number, Real) for number in raw)
    if not plain or not raw:
        raise TypeError("the model gave something else than numbers")
    return tuple(float(number) for number in raw)
