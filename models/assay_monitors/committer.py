"""Committer: holds the changes of runs until they are written, through every failure to do so."""

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from assay_monitors.changes import Changes, Counts, DoubtfulCommit, Outcome, QueuedChange
from assay_monitors.database import (
    STORE_ERRORS,
    CommitInDoubtError,
    LostCommitError,
    StoreUnavailableError,
)
from assay_monitors.reason_log import ReasonLog
from assay_monitors.store import RunStore

logger = logging.getLogger(__name__)

MAX_WINDOWS = 1_024
MAX_KNOWN_RUNS = 10_000
UNWRITTEN = "runs cannot be written, which is tried again"
UNREAD = "what was written of runs cannot be read"

OnCommit = Callable[[Mapping[str, str]], None]
T = TypeVar("T")


class Committer:
    """The changes that wait for a commit, and the commits; used by one thread.

    A commit that fails is tried again with all that came since. One of which it is not known
    whether it was stored is kept apart until the database says so, and then written again or not.

    Args:
        store: to write to.
        clock: monotonic seconds.
        interval: seconds from a change to its commit.
        counts: to add to.
        on_commit: called with the runs that were written, and their owners.

    Attributes:
        known: the runs that are stored, as far as this process knows.
        due: when the changes are to be written; None if there are none.
        is_urgent: whether they are to be written at once, for a new run.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Callable[[], float],
        interval: float,
        *,
        counts: Counts,
        on_commit: OnCommit | None,
    ) -> None:
        self.counts = counts
        self.known = set(store.owners())
        self.due: float | None = None
        self.is_urgent = False
        self._store = store
        self._clock = clock
        self._interval = interval
        self._on_commit = on_commit
        self._changes = Changes()
        self._unwritten: Counter[str] = Counter()
        self._doubtful: DoubtfulCommit | None = None
        self._failure: Exception | None = None
        self._writing = ReasonLog(logger, logging.ERROR, UNWRITTEN, "runs are written again")
        self._checking = ReasonLog(logger, logging.ERROR, UNREAD, "what is written can be read")

    def add(self, change: QueuedChange) -> None:
        """Sum a change, for which there must be room; count it if its sender may not make it."""
        if not self._is_permitted(change):
            self.counts.refused["owner"] += change.size
            return
        error = caught(partial(change.apply, self._changes))
        if error is not None:
            self._drop(change.run, change.size, error)
            return
        self._unwritten[change.run] += change.size
        self.is_urgent |= change.run not in self.known
        if self.due is None:
            self.due = self._clock() + self._interval

    def drop_all(self) -> None:
        """Count what was not written as dropped."""
        if self._doubtful is not None:
            self._unwritten += self._doubtful.sizes
        self._doubtful = None
        self.counts.dropped += self._unwritten.total()
        self._unwritten.clear()

    @property
    def is_failing(self) -> bool:
        """Whether the latest attempt to write has failed."""
        return self._failure is not None

    @property
    def is_late(self) -> bool:
        """Whether a commit is due."""
        return self.due is not None and self._clock() >= self.due

    @property
    def has_room(self) -> bool:
        """Whether more changes may wait."""
        return len(self._changes.windows) + len(self._changes.gold) < MAX_WINDOWS

    @property
    def is_full(self) -> bool:
        """Whether a commit must make room; one that has just failed is not repeated for that."""
        return not self.has_room and not self.is_failing

    def unwritten_error(self) -> Exception | None:
        """Return the error of an order whose earlier changes could not be written."""
        if not self._changes and self._doubtful is None:
            return None
        is_lost = isinstance(self._failure, StoreUnavailableError)
        kind = StoreUnavailableError if is_lost else sqlite3.OperationalError
        return kind("earlier changes could not be written")

    def _is_permitted(self, change: QueuedChange) -> bool:
        """Return whether the sender may write to the run; a new run becomes its own."""
        owners = self._changes.owners
        if change.run not in owners:
            owner = caught(partial(self._store.owner, change.run))
            # Where the file cannot be read, the write finds out whose the run is.
            owners[change.run] = owner if isinstance(owner, str) else change.writer.name
        return change.writer.may_change(owners[change.run])

    def commit(self) -> None:
        """Write the changes that wait; a failure is logged and counted."""
        self.is_urgent = False
        if not self._is_settled() or not self._changes:
            return
        outcome = caught(partial(self._write, self._changes))
        if isinstance(outcome, CommitInDoubtError):
            self._doubtful = DoubtfulCommit(self._changes, self._unwritten)
            self._changes, self._unwritten = Changes(), Counter()
            self._fail(outcome)
        elif isinstance(outcome, STORE_ERRORS):
            self._fail(outcome)
        elif isinstance(outcome, Exception):
            self._commit_apart()
        else:
            self._finish(self._changes, outcome)

    def _is_settled(self) -> bool:
        """Return whether no commit is in doubt; what was not committed is written with the next."""
        doubtful, later = self._doubtful, self._changes
        if doubtful is None:
            return True
        outcome = caught(self._store.was_committed)
        if isinstance(outcome, Exception):
            self._fail(outcome)
            return False
        self._doubtful = None
        if outcome is None:
            doubtful.changes.merge(later)
            self._changes = doubtful.changes
            self._unwritten += doubtful.sizes
        else:
            unwritten, self._unwritten = self._unwritten, doubtful.sizes
            self._finish(doubtful.changes, outcome)
            self._changes, self._unwritten = later, unwritten
        return True

    def _commit_apart(self) -> None:
        """Commit each run alone, after an unexpected error, and drop those that cause one."""
        whole = self._changes
        for run in sorted(whole.runs):
            part = whole.of_run(run)
            outcome = caught(partial(self._write, part))
            if isinstance(outcome, Exception):
                self._drop(run, self._unwritten.pop(run, 0), outcome)
            else:
                self._finish(part, outcome)
        self._changes, self.due = Changes(), None

    def _write(self, changes: Changes) -> Outcome:
        """Write changes, and look for them in the file.

        What was written and is not found is not written again into the same file: it may be there.
        """
        if not self._store.is_in_place:
            self._store.reopen()
        outcome = self._store.write(changes)
        error = caught(partial(self._store.check_written, changes.runs))
        if isinstance(error, LostCommitError) and not self._store.is_in_place:
            raise error
        self.counts.is_kept = error is None
        if error is None:
            self.counts.last_commit = outcome.time
            self._checking.note_success()
        else:
            self._checking.note_failure(error)
        return outcome

    def _finish(self, changes: Changes, outcome: Outcome) -> None:
        """Take in that changes were written."""
        if len(self.known) > MAX_KNOWN_RUNS:
            self.known.clear()
        runs = changes.runs
        self.known |= outcome.owners.keys()
        self.counts.damaged_rows += outcome.damaged
        self.counts.refused.update(outcome.refused)
        size = sum([self._unwritten.pop(run, 0) for run in runs])
        self.counts.written += max(0, size - outcome.refused.total())
        self._writing.note_success()
        self._failure = None
        self._changes, self.due = Changes(), None
        if self._on_commit is not None:
            error = caught(partial(self._on_commit, outcome.owners))
            if error is not None:
                logger.error("a commit of runs could not be announced", exc_info=error)

    def _fail(self, error: Exception) -> None:
        """Take in that nothing was written, to try again."""
        self.counts.failed_commits += 1
        self.counts.is_kept = False
        self._writing.note_failure(error)
        self._failure = error
        self.due = self._clock() + self._interval

    def _drop(self, run: str, size: int, error: Exception) -> None:
        self.counts.dropped += size
        self.counts.is_kept = False
        logger.error("data of the run %r were dropped", run, exc_info=error)


def caught(work: Callable[[], T]) -> T | Exception:
    """Return the result of `work`, or the error that it raised."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 no fault, of one run or of the file, may end the recording of all runs
        return error
