"""PreparationPool: the threads that prepare items, and the order in which requests have them.

A family's `prepare` is plain code. At its preemption points it gives its thread's permit to the
task that goes next, or ends because its caller has left or its deadline has passed.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any, Literal, TypeVar

from assay.batching.scheduler import MIN_SHARE, RANK, reserve
from assay.errors import AssayError, RequestTooLarge
from assay.metrics import Metrics
from assay.scoring.preparation_errors import ERRORS, PreparationStopped, Reason, no_room, too_large
from assay.types import LANES, Clock, Lane
from assay_models.preemption import preempt

T = TypeVar("T")
Spend = Callable[[int, int], None]

SLICE_SECONDS = 0.005
"""A task keeps its permit for this long, and until its next preemption point."""
MAX_STARTED = 64
"""Tasks of one lane that have started and are not finished; each of them has a thread."""
LONG_SECONDS, MAX_LONG = 0.02, 48
"""A task that has run for so long is long, and so many of a lane's started tasks may be. One more
begins again once another has ended, so that places are left for the tasks that are soon done."""

State = Literal["new", "running", "paused", "restarting", "stopping", "done"]


@dataclass(slots=True, eq=False)
class Task:
    """One request's preparation.

    `used` is its virtual time: that of its start, and the seconds for which it has run since. `ran`
    are its seconds in all. `by_share`: it goes before a higher lane. `resumed`: it may go on.
    """

    lane: Lane
    size: int = 0
    deadline: float = float("inf")
    submitted: float = 0.0
    work: Callable[[], Any] = lambda: None
    spend: Spend = lambda tokens, inputs: None
    future: Future[Any] = field(default_factory=Future)
    state: State = "new"
    used: float = 0.0
    ran: float = 0.0
    is_long: bool = False
    by_share: bool = False
    began: float = 0.0
    error: AssayError | None = None
    resumed: threading.Event | None = None


_Heap = list[tuple[float, int, Task]]


@dataclass(slots=True, eq=False)
class _LaneQueue:
    """The tasks of one lane that can run. `time` is the latest virtual time that it reached.

    `started` and `long` count tasks that are not finished, `dropped` those still in the heaps.
    """

    lane: Lane
    time: float = 0.0
    deficit: float = 0.0
    started: int = 0
    long: int = 0
    dropped: int = 0
    new: _Heap = field(default_factory=list)
    restarting: _Heap = field(default_factory=list)
    paused: _Heap = field(default_factory=list)

    @property
    def heaps(self) -> tuple[_Heap, ...]:
        return self.paused, self.new, self.restarting

    def start_of(self, task: Task) -> float:
        """Return the virtual time of a task that starts now: a new one goes before long ones."""
        return max(task.used, self.time - (0 if task.is_long else LONG_SECONDS))

    def first(self) -> _Heap | None:
        """Return the heap whose first task goes next; None if no task can run."""
        for heap in self.heaps:
            while heap and not _waits(heap[0]):
                heappop(heap)
                self.dropped -= 1
        heaps = self.heaps if self.long < MAX_LONG else self.heaps[:2]
        heaps = heaps if self.started < MAX_STARTED else self.heaps[:1]
        return min((heap for heap in heaps if heap), key=lambda heap: heap[0][:2], default=None)


def _waits(entry: tuple[float, int, Task]) -> bool:
    return entry[2].state in ("new", "paused")


class PreparationQueue:
    """The tasks that wait for a permit. Pure: no threads, no clock.

    A higher lane goes first; a lower one that waits beside it gets its minimum share of the seconds
    by a deficit, as in `batching.scheduler`. Within a lane the task of the least virtual time goes
    first (start-time fair queueing, Goyal, Vin and Cheng 1996), so that a short one passes long
    ones; these get equal seconds.
    """

    def __init__(self) -> None:
        self._lanes = {lane: _LaneQueue(lane) for lane in LANES}
        self._number = 0

    def push(self, task: Task) -> None:
        """Add a new task, or one that gives way."""
        lane = self._lanes[task.lane]
        self._number += 1
        if task.state == "running":
            task.state, heap = "paused", lane.paused
        else:
            task.state, heap = "new", lane.restarting if task.is_long else lane.new
            task.used = lane.start_of(task)
        heappush(heap, (task.used, self._number, task))

    def pop(self) -> Task | None:
        """Take out the task that goes next; None if no task can run."""
        ready = [(lane, heap) for lane in self._lanes.values() if (heap := lane.first())]
        if not ready:
            return None
        first, *others = ready
        lane, heap = next((pair for pair in others if pair[0].deficit > 0), first)
        task = heappop(heap)[2]
        if task.state == "new":  # it gets no seconds for the time before its start
            lane.started, lane.long = lane.started + 1, lane.long + task.is_long
            task.used = lane.start_of(task)
        lane.time = max(lane.time, task.used)
        task.state, task.by_share = "running", lane is not first[0]
        return task

    def charge(self, task: Task, seconds: float) -> None:
        """Account for the seconds for which a task has run since it was taken out."""
        task.used += seconds
        task.ran += seconds
        above = False
        for lane in self._lanes.values():
            if above:
                owed = seconds * MIN_SHARE[lane.lane] / (1 - MIN_SHARE[lane.lane])
                lane.deficit = lane.deficit + owed if lane.first() else min(0.0, lane.deficit)
            elif lane.lane == task.lane:
                above = True
                floor = float("-inf") if task.by_share else min(0.0, lane.deficit)
                lane.deficit = max(floor, lane.deficit - seconds)

    def outgrows(self, task: Task) -> bool:
        """Return whether a running task has become long while its lane has no place for that."""
        lane = self._lanes[task.lane]
        if task.is_long or task.ran < LONG_SECONDS:
            return False
        task.is_long = lane.long < MAX_LONG
        lane.long += task.is_long
        return not task.is_long

    def finish(self, task: Task) -> None:
        """Count a started task as finished."""
        lane = self._lanes[task.lane]
        lane.started, lane.long = lane.started - 1, lane.long - task.is_long

    def discard(self, task: Task) -> None:
        """Count a waiting task as dropped; take all of these out once they are the most."""
        lane = self._lanes[task.lane]
        lane.dropped += 1
        if 2 * lane.dropped > sum(map(len, lane.heaps)):
            for heap in lane.heaps:
                heap[:] = filter(_waits, heap)
                heapify(heap)
            lane.dropped = 0


class PreparationPool:
    """Threads for preparation, with a bound on the bytes that wait for them.

    Args:
        threads: tasks that run at a time.
        max_bytes: the bound on the bytes of all requests that wait or run. Bulk may hold three
            quarters of it, training and bulk together fifteen sixteenths.
        clock: monotonic seconds, the same clock as the deadlines'.
        metrics: the series of the process.
        slice_seconds: the time after which a running task gives way.
    """

    def __init__(
        self,
        threads: int,
        *,
        max_bytes: int,
        clock: Clock,
        metrics: Metrics,
        slice_seconds: float = SLICE_SECONDS,
    ) -> None:
        self._free = threads
        self._rooms = {lane: max_bytes - reserve(max_bytes, lane) for lane in LANES}
        self._clock = clock
        self._series = metrics.preparation
        self._slice_seconds = slice_seconds
        self._lock = threading.Lock()
        self._queue = PreparationQueue()
        self._tasks: set[Task] = set()
        self._bytes: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._executor = ThreadPoolExecutor(len(LANES) * MAX_STARTED, thread_name_prefix="prepare")

    async def run(
        self, work: Callable[[], T], *, spend: Spend, size: int, lane: Lane, deadline: float
    ) -> T:
        """Return the result of `work`, which a thread runs when it is its request's time.

        Args:
            work: calls `preemption_point` every few milliseconds. May begin a second time.
            spend: called with the tokens and the number of inputs that `work` has made; raises an
                `AssayError` if its request may have no more.
            size: the bytes of the request's items.
            lane: the priority.
            deadline: the clock's time after which the result is of no use.

        Raises:
            Overloaded: too many bytes wait.
            RequestTooLarge: the request has more bytes than may ever wait.
            DeadlineExceeded: the deadline passed first.
            ShuttingDown: the pool was closed.
            AssayError: `spend` or `work` raised it.
        """
        task = Task(lane, size, deadline, self._clock(), work, spend)
        self._admit(task)
        seconds = max(0.0, deadline - task.submitted)
        timer = asyncio.get_running_loop().call_later(seconds, self._drop, task, "expired")
        try:
            result: T = await asyncio.wrap_future(task.future)
        finally:
            timer.cancel()
            self._drop(task, "abandoned")
        return result

    def close(self) -> None:
        """Drop all tasks, and end the threads."""
        for task in list(self._tasks):
            self._drop(task, "shutdown")
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _admit(self, task: Task) -> None:
        with self._lock:
            self._check_room(task.size, task.lane)
            self._bytes[task.lane] += task.size
            self._tasks.add(task)
            self._queue.push(task)
            self._measure()
            self._dispatch()

    def check_size(self, size: int, lane: Lane) -> None:
        """Check the bytes of a request's items, which may be counted while they become known.

        Raises:
            RequestTooLarge: they are more than may ever wait.
        """
        if size > self._rooms[lane]:
            raise too_large(size, self._rooms[lane])

    def _check_room(self, size: int, lane: Lane) -> None:
        self.check_size(size, lane)
        held = 0
        for other in reversed(LANES):
            held += self._bytes[other]
            is_over = held + size > self._rooms[other]
            if is_over and RANK[other] <= RANK[lane]:
                self._series.dropped["overloaded"].inc()
                raise no_room(size, sum(self._bytes.values()))

    def _dispatch(self) -> None:
        """Let tasks run while there are permits. The caller holds the lock."""
        while self._free and (task := self._queue.pop()) is not None:
            self._free -= 1
            self._go_on(task)

    def _go_on(self, task: Task) -> None:
        if task.resumed is not None:
            task.resumed.set()
            return
        self._executor.submit(self._execute, task).add_done_callback(partial(self._settle, task))

    def _execute(self, task: Task) -> object:
        task.began = self._clock()
        if not task.ran:
            self._series.wait_seconds[task.lane].observe(max(0.0, task.began - task.submitted))
        token = preempt.set(partial(self._preempt, task))
        try:
            return task.work()
        finally:
            preempt.reset(token)
            self._finish(task)

    def _preempt(self, task: Task, tokens: int = 0, inputs: int = 0) -> None:
        """Give way if the slice is over and another task goes first.

        Raises:
            PreparationStopped: the task was dropped, or needs more than its request may have.
        """
        if inputs:
            _spend(task, tokens, inputs)
        now = self._clock()
        if now >= task.deadline:
            self._drop(task, "expired")
        elif task.error is None and now - task.began >= self._slice_seconds:
            self._give_way(task, now)
        if task.error is not None:
            raise PreparationStopped(task.error)

    def _give_way(self, task: Task, now: float) -> None:
        with self._lock:
            self._queue.charge(task, now - task.began)
            task.began = now
            if self._queue.outgrows(task):
                task.state = "restarting"
                raise PreparationStopped(None)
            self._queue.push(task)
            first = self._queue.pop()
            if first is not None and first is not task:
                task.resumed = task.resumed or threading.Event()
                task.resumed.clear()
                self._go_on(first)
        if first is not task:
            assert task.resumed is not None, "it was paused"
            task.resumed.wait()
        task.began = self._clock()

    def _finish(self, task: Task) -> None:
        with self._lock:
            if task.state in ("running", "restarting"):
                self._queue.charge(task, self._clock() - task.began)
                self._free += 1
            self._queue.finish(task)
            if task.state == "restarting" and task.error is None:
                task.is_long, task.resumed = True, None
                self._queue.push(task)
            else:
                self._release(task)
            self._dispatch()

    def _release(self, task: Task) -> None:
        """Uncount an ended task, and let go of its items."""
        task.state = "done"
        del task.work, task.spend
        self._bytes[task.lane] -= task.size
        self._tasks.discard(task)
        self._measure()

    def _settle(self, task: Task, running: Future[object]) -> None:
        error = running.exception()
        if isinstance(error, PreparationStopped):
            if error.error is None:
                return
            error = error.error
        if isinstance(error, RequestTooLarge):
            self._series.dropped["too_large"].inc()
        with suppress(InvalidStateError):  # the caller has left
            if error is None:
                task.future.set_result(running.result())
            else:
                task.future.set_exception(error)

    def _drop(self, task: Task, reason: Reason) -> None:
        """End a task whose result is of no use any more."""
        with self._lock:
            if task.state == "done" or task.error is not None:
                return
            task.error = ERRORS[reason]()
            with suppress(InvalidStateError):
                task.future.set_exception(task.error)
            if task.state == "new":
                self._release(task)
                self._queue.discard(task)
            elif task.state == "paused":
                assert task.resumed is not None, "it was paused"
                task.state = "stopping"
                self._queue.discard(task)
                task.resumed.set()
        self._series.dropped[reason].inc()

    def _measure(self) -> None:
        self._series.bytes.set(sum(self._bytes.values()))
        self._series.requests.set(len(self._tasks))


def _spend(task: Task, tokens: int, inputs: int) -> None:
    try:
        task.spend(tokens, inputs)
    except AssayError as error:
        raise PreparationStopped(error) from None
