"""Recorder: queues observations from any thread and commits them on a thread of its own."""

import sqlite3
import threading
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from assay_monitors.gold import GoldPoint
from assay_monitors.history import TRAINER_STREAM
from assay_monitors.observations import Observation, Window
from assay_monitors.store import Changes, Edit, RunStore
from assay_monitors.summaries import Summary

COMMIT_SECONDS = 0.25
MAX_QUEUED = 8_192
MAX_WINDOWS = 1_024
MAX_KNOWN_RUNS = 10_000
WRITE_ERRORS = (sqlite3.Error, ValueError, zlib.error)
"""Errors of a write: the file is busy, the disk full, or a summary in the file cannot be read."""

Apply = Callable[[Changes], None]
OnCommit = Callable[[set[str]], None]
T = TypeVar("T")


class QueuedChange(NamedTuple):
    """A change that waits in the queue: its run, its observations, and how it is applied.

    An order is work on the store, for which there is always room.
    """

    run: str
    size: int
    apply: Apply
    is_order: bool = False


@dataclass(slots=True)
class Counts:
    """Observations that were written and that were dropped, and commits that failed.

    Observations are dropped where the writer cannot keep up, or the disk does not take them.
    """

    written: int = 0
    dropped: int = 0
    failed_commits: int = 0


class Recorder:
    """Takes observations from any thread, sums them and commits them on one of its own.

    `record` only appends to a queue, which is bounded in observations: what does not fit is dropped
    and counted. All that has waited for a quarter of a second is committed together, a new run at
    once; between two commits the writer sleeps, unless the queue is half full. A full queue is
    summed in less than half a second, so a kill costs no more than a second's observations. A
    commit that fails is tried again.

    Args:
        store: to write to; only the recorder may use it from here on.
        clock: monotonic seconds.
        interval: seconds from an observation to its commit.
        capacity: observations that may wait.
        on_commit: called on the writer's thread with the runs of which data was committed.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Callable[[], float],
        *,
        interval: float = COMMIT_SECONDS,
        capacity: int = MAX_QUEUED,
        on_commit: OnCommit | None = None,
    ) -> None:
        self.counts = Counts()
        self._store = store
        self._clock = clock
        self._interval = interval
        self._capacity = capacity
        self._on_commit = on_commit
        self._lock = threading.Lock()
        self._queue: deque[QueuedChange] = deque()
        self._size = 0
        self._is_closing = False
        self._is_scheduled = False
        self._wake = threading.Event()
        self._changes = Changes()
        self._unwritten = 0
        self._due: float | None = None
        self._is_urgent = False
        self._is_failing = False
        self._known = store.runs()
        self._thread = threading.Thread(target=self._run, name="assay-recorder", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def record(
        self, window: Window, observations: Sequence[Observation], *, names_step: bool = True
    ) -> bool:
        """Queue the observations of a request; return False where they are dropped.

        Args:
            window: the key that they are summed under.
            observations: of the request's items.
            names_step: whether the window's step is the one that the trainer named last.
        """
        apply = partial(_observe, window, tuple(observations), names_step)
        return self._enqueue(QueuedChange(window.run, len(observations), apply))

    def record_telemetry(self, run: str, step: int, values: Mapping[str, float]) -> bool:
        """Queue a trainer's values of a step; return False where they are dropped."""
        apply = partial(_add_telemetry, Window(run, *TRAINER_STREAM, step), dict(values))
        return self._enqueue(QueuedChange(run, 1, apply))

    def record_gold(self, run: str, source: str, point: GoldPoint) -> bool:
        """Queue a gold measurement; return False where it is dropped.

        It replaces the source's previous measurement of that step.
        """
        apply = partial(_add_gold, (run, source, point.step), point)
        return self._enqueue(QueuedChange(run, 1, apply))

    def delete(self, run: str) -> Future[bool]:
        """Delete a run, with all that was recorded of it before; False where it is not kept.

        The future raises sqlite3.Error where the file cannot be written.
        """
        return self._order(partial(self._delete, run))

    def edit(self, run: str, *, name: str | None, note: str | None) -> Future[Edit]:
        """Give a run another name, a note, or both, with all that was recorded of it before.

        The future raises sqlite3.Error where the file cannot be written.
        """
        return self._order(partial(self._edit, run, name, note))

    @property
    def is_alive(self) -> bool:
        """Whether the writer runs: started, not closed, and not ended by an error."""
        return self._thread.is_alive()

    def close(self, timeout: float | None = None) -> None:
        """Write the queue and stop; wait at most `timeout` seconds for that."""
        with self._lock:
            self._is_closing = True
        self._wake.set()
        if self._thread.ident is None:
            self._run()
        else:
            self._thread.join(timeout)

    def process_queue(self) -> float | None:
        """Sum the queue, and commit if that is due: one iteration of the writer's loop.

        Returns:
            Seconds until a commit is due, None if none is.
        """
        began = self._clock()
        for change in self._take_queue():
            self._add(change)
            # What is due is committed with all that came with it, unless summing that takes long.
            if self._is_full or (self._is_late and self._clock() >= began + self._interval):
                self._commit()
        if self._is_late or self._is_closing or (self._is_urgent and not self._is_failing):
            self._commit()
        with self._lock:
            self._is_scheduled = self._due is not None or bool(self._queue)
            if self._due is None:
                return 0.0 if self._queue else None
        return max(0.0, self._due - self._clock())

    @property
    def _is_late(self) -> bool:
        return self._due is not None and self._clock() >= self._due

    @property
    def _has_room(self) -> bool:
        return len(self._changes.windows) + len(self._changes.gold) < MAX_WINDOWS

    @property
    def _is_full(self) -> bool:
        """Whether a commit must make room; one that has just failed is not repeated for that."""
        return not self._has_room and not self._is_failing

    def _order(self, work: Callable[[], T]) -> Future[T]:
        """Queue work on the store, which is done once all that waits before it is committed.

        Work whose future was cancelled by then is not done.
        """
        future: Future[T] = Future()

        def apply(_: Changes) -> None:
            self._commit()
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self._changes:
                    raise sqlite3.OperationalError("earlier changes could not be written")
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 the waiting caller raises it; the writer goes on
                future.set_exception(error)

        if not self._enqueue(QueuedChange("", 0, apply, is_order=True)):
            future.set_exception(sqlite3.OperationalError("the writer has stopped"))
        self._wake.set()
        return future

    def _delete(self, run: str) -> bool:
        self._known.discard(run)
        return self._store.delete(run)

    def _edit(self, run: str, name: str | None, note: str | None) -> Edit:
        self._known.discard(run)
        return self._store.edit(run, name=name, note=note)

    def _enqueue(self, change: QueuedChange) -> bool:
        with self._lock:
            if self._is_closing or self._size + change.size > self._capacity:
                self.counts.dropped += change.size
                return False
            self._queue.append(change)
            self._size += change.size
            wake = not self._is_scheduled or 2 * self._size > self._capacity
            self._is_scheduled = True
        # To wake the writer for each request would cost the serving threads more than its work.
        if wake or change.run not in self._known:
            self._wake.set()
        return True

    def _take_queue(self) -> deque[QueuedChange]:
        with self._lock:
            taken, self._queue = self._queue, deque()
            return taken

    def _add(self, change: QueuedChange) -> None:
        if change.is_order:
            change.apply(self._changes)
            return
        has_room = self._has_room
        with self._lock:
            self._size -= change.size
            if not has_room:
                self.counts.dropped += change.size
        if not has_room:
            return
        change.apply(self._changes)
        self._unwritten += change.size
        self._is_urgent |= change.run not in self._known
        if self._due is None:
            self._due = self._clock() + self._interval

    def _commit(self) -> None:
        self._is_urgent = False
        if not self._changes:
            return
        try:
            self._store.write(self._changes)
        except WRITE_ERRORS:
            self.counts.failed_commits += 1
            self._is_failing = True
            self._due = self._clock() + self._interval
            return
        if len(self._known) > MAX_KNOWN_RUNS:
            self._known.clear()
        runs = self._changes.runs
        self._known |= runs
        self.counts.written += self._unwritten
        self._is_failing = False
        self._changes, self._unwritten, self._due = Changes(), 0, None
        if self._on_commit is not None:
            self._on_commit(runs)

    def _run(self) -> None:
        wait: float | None = None
        while not self._is_closing:
            self._wake.wait(wait)
            self._wake.clear()
            wait = self.process_queue()
        self.process_queue()
        self.counts.dropped += self._unwritten
        self._unwritten = 0
        self._store.close()


def _observe(
    window: Window, observations: Sequence[Observation], names_step: bool, changes: Changes
) -> None:
    if names_step:
        changes.last_steps[window.run] = window.step
    summary = changes.windows.setdefault(window, Summary())
    for observation in observations:
        summary.add(observation)


def _add_telemetry(window: Window, values: Mapping[str, float], changes: Changes) -> None:
    changes.last_steps[window.run] = window.step
    changes.windows.setdefault(window, Summary()).add_telemetry(values)


def _add_gold(key: tuple[str, str, int], point: GoldPoint, changes: Changes) -> None:
    run, _, step = key
    changes.last_steps[run] = step
    changes.gold[key] = point
