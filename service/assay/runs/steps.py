"""StepFiling: the step under which the items of a request without a step are recorded."""

import sqlite3
import threading

from cachetools import LRUCache, TTLCache

from assay.types import Clock
from assay_monitors.history import RunHistory, StepOrigin

MAX_RUNS = 10_000
WINDOW_SECONDS = 60.0
# Another process that shares the file may name a step, so what was read of it holds for a moment.
READ_SECONDS = 1.0


class StepFiling:
    """Filing of items without a step: under the step that was named last, else by minutes.

    Such items belong to the step that their run's trainer named last, in a request, its telemetry
    or its gold. In a run that never named one they are filed by time: under the number of whole
    minutes since the run's first data. Both hold after a restart, and across processes that share
    the file. Thread-safe.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._named: LRUCache[str, int] = LRUCache(MAX_RUNS)
        self._began: LRUCache[str, float] = LRUCache(MAX_RUNS)
        self._read: TTLCache[str, StepOrigin] = TTLCache(MAX_RUNS, READ_SECONDS, timer=clock)

    def name(self, run: str, step: int) -> None:
        """Take in that the run's trainer named a step."""
        with self._lock:
            self._named[run] = step

    def last(self, run: str) -> int | None:
        """Return the step that was named last in this process; None if none was."""
        with self._lock:
            return self._named.get(run)

    def step_of(self, run: str, history: RunHistory) -> int:
        """Return the step of items that came without one just now.

        The file is read at most once a second for a run that names no steps.
        """
        with self._lock:
            named, origin = self._named.get(run), self._read.get(run)
        if named is not None:
            return named
        now = self._clock()
        origin = origin or _read_origin(history, run)
        with self._lock:
            if origin is None:
                origin = StepOrigin(None, self._began.setdefault(run, now))
            else:
                self._read[run] = origin
        if origin.last_step is not None:
            return origin.last_step
        return max(0, int((now - origin.first_seen) // WINDOW_SECONDS))

    def forget(self, run: str) -> None:
        """Forget a run that was deleted or renamed."""
        with self._lock:
            for known in (self._named, self._began, self._read):
                known.pop(run, None)


def _read_origin(history: RunHistory, run: str) -> StepOrigin | None:
    try:
        return history.step_origin(run)
    except sqlite3.Error:  # the file is busy: the next items read it
        return None
