"""StepFiling: the step under which the items of a request without a step are recorded."""

import itertools
import sqlite3
import threading
from dataclasses import dataclass, field

from cachetools import LRUCache, TTLCache

from assay.types import Clock
from assay_monitors.history import RunHistory, StepOrigin

SPLIT = "train"
MAX_RUNS = 10_000
WINDOW_SECONDS = 60.0
# Another process that shares the file may name a step, so what was read of it holds for a moment.
READ_SECONDS = 1.0
_ARRIVALS = itertools.count()


@dataclass(slots=True)
class NamedStep:
    """The step that was named last, and the place of its request in the order of arrival."""

    arrival: int
    step: int


def next_arrival() -> int:
    """Return the place of a request that arrives now; a later one has a higher place."""
    return next(_ARRIVALS)


@dataclass(frozen=True, slots=True)
class RunStep:
    """The training run and step that a request belongs to.

    The default split is `train`. Without a step, see `StepFiling`. It is made as its request
    arrives, and `arrival` is the place of that in the order of requests.
    """

    id: str
    step: int | None = None
    split: str | None = None
    arrival: int = field(default_factory=next_arrival, compare=False)


class StepFiling:
    """Filing of items without a step: under the step that was named last, else by minutes.

    Such items belong to the step that was named last for their run and split; telemetry and gold
    name steps of `train`. The last is that of the request that arrived last: a request whose
    results come late moves nothing back, one that arrives after a return to a checkpoint does. A
    split that never named a step has that of `train`. If that has none either, items are filed by
    time: under the number of whole minutes since the run's first data. The steps of `train` and the
    minutes hold after a restart, and across processes that share the file. Thread-safe.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._named: LRUCache[tuple[str, str], NamedStep] = LRUCache(MAX_RUNS)
        self._began: LRUCache[str, float] = LRUCache(MAX_RUNS)
        self._read: TTLCache[str, StepOrigin] = TTLCache(MAX_RUNS, READ_SECONDS, timer=clock)

    def name(self, run: str, split: str, *, arrival: int, step: int) -> None:
        """Take in that a request named a step, unless one that arrived later has named another."""
        with self._lock:
            latest = self._named.get((run, split))
            if latest is None:
                self._named[run, split] = NamedStep(arrival, step)
            elif arrival >= latest.arrival:
                latest.arrival, latest.step = arrival, step

    def last(self, run: str, split: str) -> int | None:
        """Return the step that was named last in this process; None if none was."""
        with self._lock:
            named = self._named.get((run, split)) or self._named.get((run, SPLIT))
        return None if named is None else named.step

    def step_of(self, run: str, split: str, history: RunHistory) -> int:
        """Return the step of items that came without one just now.

        The file is read at most once a second for a run that names no steps.
        """
        named = self.last(run, split)
        if named is not None:
            return named
        with self._lock:
            origin = self._read.get(run)
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
            for named in [named for named in self._named if named[0] == run]:
                del self._named[named]
            self._began.pop(run, None)
            self._read.pop(run, None)


def _read_origin(history: RunHistory, run: str) -> StepOrigin | None:
    try:
        return history.step_origin(run)
    except sqlite3.Error:  # the file is busy: the next items read it
        return None
