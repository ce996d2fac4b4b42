"""From the requests to the file, without a request ever waiting for it."""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from assay_monitors.gold import GoldPoint
from assay_monitors.history import TRAINER
from assay_monitors.observations import Observation, Window
from assay_monitors.store import Changes, RunStore
from assay_monitors.summaries import Summary

INTERVAL = 0.25
CAPACITY = 8_192
MAX_WINDOWS = 1_024
MAX_KNOWN = 10_000

Note = Callable[[Changes], None]
OnCommit = Callable[[set[str]], None]


class Waiting(NamedTuple):
    """What waits to be added up: of which run, how many observations, and how."""

    run: str
    size: int
    note: Note


@dataclass(slots=True)
class Counts:
    """What became of observations: written, or dropped because the writer could not keep up or the
    disk would not take them; and how many commits failed.
    """

    written: int = 0
    dropped: int = 0
    failed_commits: int = 0


class Recorder:
    """Takes observations from any thread, adds them up and commits them on one of its own.

    `record` only appends to a queue, which is bounded in observations: what does not fit is dropped
    and counted. All that has waited for a quarter of a second is committed together, a new run at
    once; between two commits the writer sleeps, unless the queue is half full. A full queue is
    added up in less than half a second, so a kill costs no more than a second's observations. A
    commit that fails is tried again.

    Args:
        store: to write to; the recorder's alone from here on.
        clock: monotonic seconds.
        interval: seconds from an observation to its commit.
        capacity: observations that may wait.
        on_commit: called on the writer's thread with the runs of which data was committed.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Callable[[], float],
        interval: float = INTERVAL,
        capacity: int = CAPACITY,
        on_commit: OnCommit | None = None,
    ) -> None:
        self.counts = Counts()
        self._store = store
        self._clock = clock
        self._interval = interval
        self._capacity = capacity
        self._on_commit = on_commit
        self._lock = threading.Lock()
        self._waiting: deque[Waiting] = deque()
        self._size = 0
        self._closing = False
        self._scheduled = False
        self._wake = threading.Event()
        self._changes = Changes()
        self._unwritten = 0
        self._due: float | None = None
        self._urgent = False
        self._failing = False
        self._known = store.runs()
        self._thread = threading.Thread(target=self._work, name="assay-recorder", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def record(self, window: Window, observations: Sequence[Observation]) -> bool:
        """Queue the observations of a request; False where they are dropped."""
        note = partial(_observe, window, tuple(observations))
        return self._put(Waiting(window.run, len(observations), note))

    def record_telemetry(self, run: str, step: int, values: Mapping[str, float]) -> bool:
        """Queue what the trainer tells of a step; False where it is dropped."""
        note = partial(_add_telemetry, Window(run, *TRAINER, step), dict(values))
        return self._put(Waiting(run, 1, note))

    def record_gold(self, run: str, source: str, point: GoldPoint) -> bool:
        """Queue a gold measurement, which replaces the source's last of that step; False where it
        is dropped.
        """
        note = partial(_add_gold, (run, source, point.step), point)
        return self._put(Waiting(run, 1, note))

    @property
    def alive(self) -> bool:
        """Whether anything is being written: started, not closed, and not struck by an error."""
        return self._thread.is_alive()

    def close(self, timeout: float | None = None) -> None:
        """Write what waits and stop; at most `timeout` seconds are waited for it."""
        with self._lock:
            self._closing = True
        self._wake.set()
        if self._thread.ident is None:
            self._work()
        else:
            self._thread.join(timeout)

    def turn(self) -> float | None:
        """Add up what waits and commit it if it is time: the writer's one turn of work.

        Returns:
            Seconds until something is due, None if nothing is.
        """
        began = self._clock()
        for waiting in self._taken():
            self._add(waiting)
            # What is due is committed with all that came with it, unless adding that up takes long.
            if self._full or (self._late and self._clock() >= began + self._interval):
                self._commit()
        if self._late or self._closing or (self._urgent and not self._failing):
            self._commit()
        with self._lock:
            self._scheduled = self._due is not None or bool(self._waiting)
            if self._due is None:
                return 0.0 if self._waiting else None
        return max(0.0, self._due - self._clock())

    @property
    def _late(self) -> bool:
        return self._due is not None and self._clock() >= self._due

    @property
    def _full(self) -> bool:
        """No room for another window; a commit that has just failed is not tried for it."""
        held = len(self._changes.windows) + len(self._changes.gold)
        return held >= MAX_WINDOWS and not self._failing

    def _put(self, waiting: Waiting) -> bool:
        with self._lock:
            if self._closing or self._size + waiting.size > self._capacity:
                self.counts.dropped += waiting.size
                return False
            self._waiting.append(waiting)
            self._size += waiting.size
            wake = not self._scheduled or 2 * self._size > self._capacity
            self._scheduled = True
        # Woken for each request, the writer would cost the threads that answer more than its work.
        if wake or waiting.run not in self._known:
            self._wake.set()
        return True

    def _taken(self) -> deque[Waiting]:
        with self._lock:
            taken, self._waiting = self._waiting, deque()
            return taken

    def _add(self, waiting: Waiting) -> None:
        full = len(self._changes.windows) + len(self._changes.gold) >= MAX_WINDOWS
        with self._lock:
            self._size -= waiting.size
            self.counts.dropped += full * waiting.size
        if full:
            return
        waiting.note(self._changes)
        self._unwritten += waiting.size
        self._urgent |= waiting.run not in self._known
        if self._due is None:
            self._due = self._clock() + self._interval

    def _commit(self) -> None:
        self._urgent = False
        if not self._changes:
            return
        try:
            self._store.write(self._changes)
        except sqlite3.Error:
            self.counts.failed_commits += 1
            self._failing = True
            self._due = self._clock() + self._interval
            return
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        runs = self._changes.runs
        self._known |= runs
        self.counts.written += self._unwritten
        self._failing = False
        self._changes, self._unwritten, self._due = Changes(), 0, None
        if self._on_commit is not None:
            self._on_commit(runs)

    def _work(self) -> None:
        wait: float | None = None
        while not self._closing:
            self._wake.wait(wait)
            self._wake.clear()
            wait = self.turn()
        self.turn()
        self.counts.dropped += self._unwritten
        self._unwritten = 0
        self._store.close()


def _observe(window: Window, observations: Sequence[Observation], changes: Changes) -> None:
    summary = changes.windows.setdefault(window, Summary())
    for observation in observations:
        summary.add(observation)


def _add_telemetry(window: Window, values: Mapping[str, float], changes: Changes) -> None:
    changes.windows.setdefault(window, Summary()).add_telemetry(values)


def _add_gold(key: tuple[str, str, int], point: GoldPoint, changes: Changes) -> None:
    changes.gold[key] = point
