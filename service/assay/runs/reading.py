"""RunReader: reads runs off the event loop, with a deadline and a share for each caller."""

import asyncio
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from assay.errors import DeadlineExceeded, Overloaded, RunsUnavailable
from assay_monitors.database import (
    ReadTimeoutError,
    StoreError,
    StoreUnavailableError,
)
from assay_monitors.history import RunHistory

logger = logging.getLogger(__name__)

T = TypeVar("T")

READ_SECONDS = 10.0
GRACE_SECONDS = 1.0
MAX_REASONS = 16
RETRY_SECONDS = 1.0
REPORT_THREADS = 2
READ_ERRORS = (sqlite3.Error, StoreError, StoreUnavailableError)
MAX_REPORTS_PER_OWNER, MAX_REPORTS = 8, 32
"""Reports that may wait or be made at a time: for one key, and in all."""


class RunReader:
    """Reader of the runs' file for requests.

    Short questions have a thread of their own, so that the list of runs never waits for a report of
    a large run. A reader that takes too long, or whose caller has left, ends soon.

    Args:
        history: the file.
        on_damage: called with the runs of which rows could not be read; never waits.
        seconds: until a reader ends.
    """

    def __init__(
        self,
        history: RunHistory,
        on_damage: Callable[[Iterable[str]], None],
        *,
        seconds: float = READ_SECONDS,
    ) -> None:
        self._history = history
        self._on_damage = on_damage
        self._seconds = seconds
        # A database ends a query that takes too long by itself: one that does not hangs.
        self._grace = GRACE_SECONDS if history.is_shared else 0.0
        self._short = ThreadPoolExecutor(1, thread_name_prefix="assay-reading")
        self._long = ThreadPoolExecutor(REPORT_THREADS, thread_name_prefix="assay-reporting")
        self._reports: Counter[str] = Counter()
        self._reasons: set[str] = set()

    async def read(self, query: Callable[[RunHistory], T]) -> T:
        """Return the result of a short query.

        Raises:
            Overloaded: the file is busy or cannot be read now.
            RunsUnavailable: the database that replicas share cannot be read now.
            DeadlineExceeded: it took too long.
        """
        return await self._run(self._short, query)

    async def report(self, query: Callable[[RunHistory], T], owner: str) -> T:
        """Return the result of a query that may read a whole run.

        Args:
            query: is given the history.
            owner: the name of the caller's key, for its share.

        Raises:
            Overloaded: the caller has too many such queries already, or the file is busy.
            RunsUnavailable: the database that replicas share cannot be read now.
            DeadlineExceeded: it took too long.
        """
        with self._share(owner):
            return await self._run(self._long, query)

    def close(self) -> None:
        """Stop; what is being read ends on its own."""
        self._short.shutdown(wait=False, cancel_futures=True)
        self._long.shutdown(wait=False, cancel_futures=True)

    async def _run(self, pool: ThreadPoolExecutor, query: Callable[[RunHistory], T]) -> T:
        has_left, deadline = threading.Event(), time.monotonic() + self._seconds
        history = self._history.until(lambda: has_left.is_set() or time.monotonic() > deadline)
        try:
            async with asyncio.timeout(self._seconds + self._grace):
                loop = asyncio.get_running_loop()
                result = await loop.run_in_executor(pool, query, history)
                self._note_success()
                return result
        except READ_ERRORS as error:
            self._note_failure(error)
            raise storage_error(error, "read") from error
        except (TimeoutError, ReadTimeoutError) as error:
            if self._grace and not isinstance(error, ReadTimeoutError):
                silence = StoreUnavailableError("it does not answer")
                self._note_failure(silence)
                raise storage_error(silence, "read") from error
            raise DeadlineExceeded(
                f"the run could not be read within {self._seconds:g} s",
                hint="ask for a part: ?model=, ?split= or ?since=",
                retry_after=RETRY_SECONDS,
            ) from error
        finally:
            has_left.set()
            if history.damaged:
                self._on_damage(list(history.damaged))

    def _note_failure(self, error: Exception) -> None:
        """Log a reason once, until the runs can be read again: a page asks every second."""
        reason = str(error)
        if reason not in self._reasons and len(self._reasons) < MAX_REASONS:
            self._reasons.add(reason)
            logger.warning("runs cannot be read: %s", reason)

    def _note_success(self) -> None:
        if self._reasons:
            self._reasons.clear()
            logger.info("runs can be read again")

    @contextmanager
    def _share(self, owner: str) -> Iterator[None]:
        if self._reports[owner] >= MAX_REPORTS_PER_OWNER or self._reports.total() >= MAX_REPORTS:
            raise busy("too many reports of runs are being made")
        self._reports[owner] += 1
        try:
            yield
        finally:
            self._reports[owner] -= 1
            self._reports += Counter()  # forgets the owners without a report


def busy(detail: str) -> Overloaded:
    """Return the error of a request about runs that may succeed a moment later."""
    return Overloaded(detail, hint="scores are not affected", retry_after=RETRY_SECONDS)


def storage_error(error: Exception, verb: str) -> Overloaded:
    """Return the error of a request whose runs cannot be read or written (`verb`) now.

    The reason, which may name an address, is for the log alone.
    """
    if isinstance(error, StoreUnavailableError):
        return RunsUnavailable(
            f"the database in which runs are kept cannot be {verb} now",
            hint="scores are not affected; the server's log says why",
            retry_after=RETRY_SECONDS,
        )
    return busy(f"the file in which runs are kept cannot be {verb} now")
