"""NewRuns: runs that a request has named and that are not in the file yet."""

import threading
from collections.abc import Iterable

from cachetools import TTLCache

from assay.types import Clock

MAX_NEW_RUNS, MAX_STORED_RUNS = 200, 10_000
NEW_SECONDS = 60.0


class NewRuns:
    """Names of runs from their first request until they are stored, at most for a minute.

    So a run is known as soon as a request that named it was answered, though its results are
    written a moment later. Thread-safe; a run that is stored costs one look into a set.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._stored: set[str] = set()
        self._new: TTLCache[str, float] = TTLCache(MAX_NEW_RUNS, NEW_SECONDS, timer=clock)

    def add(self, run: str) -> None:
        """Take in that a request has named the run."""
        if run not in self._stored:
            with self._lock:
                self._new[run] = self._clock()

    def store(self, runs: Iterable[str]) -> None:
        """Take in that these runs are in the file."""
        with self._lock:
            if len(self._stored) > MAX_STORED_RUNS:
                self._stored.clear()
            for run in runs:
                self._stored.add(run)
                self._new.pop(run, None)

    def replace_stored(self, runs: Iterable[str]) -> None:
        """Take in that these runs are stored, and no others."""
        with self._lock:
            self._stored = set(runs)

    def remove(self, run: str) -> None:
        """Take in that the run is no longer in the file."""
        with self._lock:
            self._stored.discard(run)
            self._new.pop(run, None)

    def seen(self) -> dict[str, float]:
        """Return the new runs, and when each was named last."""
        # `dict` lists the names and then reads each: none may expire in between.
        with self._lock, self._new.timer:
            return dict(self._new)
