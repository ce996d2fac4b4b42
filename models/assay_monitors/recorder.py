"""Recorder: queues observations from any thread and commits them on a thread of its own."""

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from assay_monitors.admission import ANY_WRITER, Writer
from assay_monitors.changes import Changes, Counts, QueuedChange
from assay_monitors.committer import Committer, OnCommit, caught
from assay_monitors.gold import GoldPoint
from assay_monitors.history import TRAINER_STREAM
from assay_monitors.observations import Observation, Window
from assay_monitors.store import Edit, RunStore

logger = logging.getLogger(__name__)

COMMIT_SECONDS = 0.25
OVERDUE_SECONDS = 30.0
MAX_QUEUED = 8_192

T = TypeVar("T")


class Recorder:
    """Takes observations from any thread, sums them and commits them on one of its own.

    `record` only appends to a queue, which is bounded in observations: what does not fit is dropped
    and counted. All that has waited for a quarter of a second is committed together, a new run at
    once; between two commits the writer sleeps, unless the queue is half full. A full queue is
    summed in less than half a second, so a kill costs no more than a second's observations. A
    commit that fails is tried again, in a new file where the old one was deleted. No error ends the
    writer: what it cannot write for another reason than the file is logged, dropped and counted.

    Args:
        store: to write to; only the recorder may use it from here on.
        clock: monotonic seconds.
        interval: seconds from an observation to its commit.
        capacity: observations that may wait.
        on_commit: called on the writer's thread with the runs that were written, and their owners.
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
        self._lock = threading.Lock()
        self._queue: deque[QueuedChange] = deque()
        self._size = 0
        self._is_closing = False
        self._is_scheduled = False
        self._wake = threading.Event()
        self._committer = Committer(store, clock, interval, counts=self.counts, on_commit=on_commit)
        self._thread = threading.Thread(target=self._run, name="assay-recorder", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def record(
        self,
        window: Window,
        observations: Sequence[Observation],
        *,
        names_step: bool = True,
        named_at: float | None = None,
        writer: Writer = ANY_WRITER,
    ) -> bool:
        """Queue the observations of a request; return False where they are dropped.

        Args:
            window: the key that they are summed under.
            observations: of the request's items.
            names_step: whether the window's step is the one that the trainer named last.
            named_at: when it was named, in seconds since the epoch.
            writer: the sender of the request.
        """
        items = tuple(observations)
        apply = partial(
            Changes.observe,
            window=window,
            items=items,
            names_step=names_step,
            named_at=named_at,
        )
        return self._enqueue(QueuedChange(window.run, len(items), apply, writer))

    def record_telemetry(
        self,
        run: str,
        step: int,
        values: Mapping[str, float],
        writer: Writer = ANY_WRITER,
        named_at: float | None = None,
    ) -> bool:
        """Queue a trainer's values of a step; return False where they are dropped."""
        window, kept = Window(run, *TRAINER_STREAM, step), dict(values)
        apply = partial(Changes.add_telemetry, window=window, values=kept, named_at=named_at)
        return self._enqueue(QueuedChange(run, 1, apply, writer))

    def record_gold(
        self,
        run: str,
        source: str,
        point: GoldPoint,
        writer: Writer = ANY_WRITER,
        named_at: float | None = None,
    ) -> bool:
        """Queue a gold measurement; return False where it is dropped.

        It replaces the source's previous measurement of that step.
        """
        key = (run, source, point.step)
        apply = partial(Changes.add_gold, key=key, point=point, named_at=named_at)
        return self._enqueue(QueuedChange(run, 1, apply, writer))

    def delete(self, run: str, writer: Writer = ANY_WRITER) -> Future[Edit]:
        """Delete a run, with all that was recorded of it before.

        The future raises sqlite3.Error where the file cannot be written.
        """
        return self._order(partial(self._store.delete, run, writer), run)

    def forget(self, run: str) -> None:
        """Take in that another server has deleted a run, after what was recorded before."""
        self._order(partial(self._store.forget, run), run)

    def edit(
        self,
        run: str,
        *,
        name: str | None = None,
        note: str | None = None,
        pinned: bool | None = None,
        writer: Writer = ANY_WRITER,
    ) -> Future[Edit]:
        """Change a run, with all that was recorded of it before; see `RunStore.edit`.

        The future raises sqlite3.Error where the file cannot be written.
        """
        edit = partial(self._store.edit, name=name, note=note, pinned=pinned, writer=writer)
        return self._order(partial(edit, run), run)

    def set_aside_damaged(self, run: str) -> Future[int]:
        """Set aside the rows of a run that cannot be read, count them, and return their number."""
        return self._order(partial(self._set_aside_damaged, run), run)

    @property
    def is_alive(self) -> bool:
        """Whether the writer runs: started, not closed, and not ended by an error."""
        return self._thread.is_alive()

    @property
    def is_durable(self) -> bool:
        """Whether the latest commit was read back, its file is still there, and none is overdue."""
        is_overdue = (
            self._committer.due is not None
            and self._clock() > self._committer.due + OVERDUE_SECONDS
        )
        is_kept = self.counts.is_kept and self._store.is_in_place
        return self.is_alive and is_kept and not is_overdue

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
        began, pending = self._clock(), self._committer
        for _ in range(len(self._queue)):
            self._add(self._queue.popleft())
            # What is due is committed with all that came with it, unless summing that takes long.
            if pending.is_full or (pending.is_late and self._clock() >= began + self._interval):
                pending.commit()
        is_urgent = pending.is_urgent and not pending.is_failing
        if pending.is_late or self._is_closing or is_urgent:
            pending.commit()
        with self._lock:
            self._is_scheduled = pending.due is not None or bool(self._queue)
            if pending.due is None:
                return 0.0 if self._queue else None
        return max(0.0, pending.due - self._clock())

    def _order(self, work: Callable[[], T], run: str) -> Future[T]:
        """Queue work on the store, which is done once all that waits before it is committed.

        Work whose future was cancelled by then is not done.
        """
        future: Future[T] = Future()

        def apply(_: Changes) -> None:
            self._committer.commit()
            if not future.set_running_or_notify_cancel():
                return
            self._committer.known.discard(run)
            unwritten = self._committer.unwritten_error()
            result = caught(work) if unwritten is None else unwritten
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        if not self._enqueue(QueuedChange("", 0, apply, is_order=True)):
            future.set_exception(sqlite3.OperationalError("the writer has stopped"))
        self._wake.set()
        return future

    def _set_aside_damaged(self, run: str) -> int:
        damaged = self._store.set_aside_damaged(run)
        self.counts.damaged_rows += damaged
        return damaged

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
        if wake or change.run not in self._committer.known:
            self._wake.set()
        return True

    def _add(self, change: QueuedChange) -> None:
        if change.is_order:
            change.apply(Changes())
            return
        has_room = self._committer.has_room
        with self._lock:
            self._size -= change.size
            if not has_room:
                self.counts.dropped += change.size
        if has_room:
            self._committer.add(change)

    def _run(self) -> None:
        wait: float | None = None
        while not self._is_closing:
            self._wake.wait(wait)
            self._wake.clear()
            wait = self._iterate()
        self._iterate()
        self._committer.drop_all()
        self._store.close()

    def _iterate(self) -> float | None:
        """Process the queue; log an error, after which the writer goes on."""
        wait = caught(self.process_queue)
        if isinstance(wait, Exception):
            self.counts.is_kept = False
            logger.error("the writer of runs goes on after an error", exc_info=wait)
            return self._interval
        return wait
