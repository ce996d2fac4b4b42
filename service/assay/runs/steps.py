"""StepFiling: the step under which the items of a request without a step are recorded."""

import threading
import time
from dataclasses import dataclass, field

from cachetools import LRUCache, TTLCache

from assay.types import Clock
from assay_monitors.database import STORE_ERRORS
from assay_monitors.history import RunHistory, StepOrigin

SPLIT = "train"
MAX_RUNS = 10_000
WINDOW_SECONDS = 60.0
# Another process that shares the file may name a step, so what was read of it holds for a moment.
READ_SECONDS = 1.0


@dataclass(slots=True)
class NamedStep:
    """The step that was named last, and the time at which its request arrived."""

    arrival: int
    step: int


def next_arrival() -> int:
    """Return the time of a request that arrives now: monotonic nanoseconds."""
    return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class RunStep:
    """The training run and step that a request belongs to.

    The default split is `train`. Without a step, see `StepFiling`. It is made as its request
    arrives, and `arrival` is the time of that, see `next_arrival`.
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

    Where servers share a database, the last step of `train` is that which was named last at any of
    them, as it was read within the last second.

    Args:
        clock: seconds since the epoch.
        is_shared: whether servers share the database.
    """

    def __init__(self, clock: Clock, *, is_shared: bool = False) -> None:
        self._clock = clock
        self._is_shared = is_shared
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

    def recent(self, run: str, split: str) -> int | None:
        """Return the step that was named last; None if none was, or another server may know it."""
        with self._lock:
            is_known = not self._is_shared or run in self._read
        return self.last(run, split) if is_known else None

    def named_at(self, arrival: int) -> float:
        """Return the time of an arrival in seconds since the epoch."""
        return self._clock() - 1e-9 * (time.monotonic_ns() - arrival)

    def step_of(self, run: str, split: str, history: RunHistory) -> int:
        """Return the step of items that came without one just now.

        The file is read at most once a second for a run that names no steps, and a shared database
        for each run.
        """
        named = None if self._is_shared else self.last(run, split)
        if named is not None:
            return named
        with self._lock:
            origin = self._read.get(run)
        now = self._clock()
        origin = origin or self._read_origin(run, history, now)
        named = self.last(run, split) if self._is_shared else origin.last_step
        if named is not None:
            return named
        return max(0, int((now - origin.first_seen) // WINDOW_SECONDS))

    def _read_origin(self, run: str, history: RunHistory, now: float) -> StepOrigin:
        """Read from where a run's items are filed; from where they were, if it cannot be read."""
        origin = _read_origin(history, run)
        with self._lock:
            if origin is None:
                return StepOrigin(None, self._began.setdefault(run, now))
            self._read[run] = origin
            if self._is_shared:
                self._began[run] = origin.first_seen
        if self._is_shared and origin.last_step is not None:
            # An arrival that lies in the future comes from a wrong clock, and is the latest.
            age = max(0.0, now - (origin.named_at or 0.0))
            arrival = time.monotonic_ns() - round(1e9 * age)
            self.name(run, SPLIT, arrival=arrival, step=origin.last_step)
        return origin

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
    except STORE_ERRORS:  # the file is busy: the next items read it
        return None
