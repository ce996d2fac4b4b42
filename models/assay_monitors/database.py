"""Connections to the database of runs, and the words in which databases differ.

All statements are written in SQL that SQLite and PostgreSQL both know, with `?` for parameters.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

BUSY_SECONDS = 5.0
"""Seconds that a writer waits for another one."""

IsOver = Callable[[], bool]


class StoreError(Exception):
    """The database cannot be used: it is no database of runs, or of another version of Assay."""


class LostCommitError(sqlite3.OperationalError):
    """A write that cannot be read back: the file was deleted, replaced or damaged."""


class StoreUnavailableError(Exception):
    """The database cannot be reached or used now; a later attempt may succeed."""


class CommitInDoubtError(StoreUnavailableError):
    """The connection ended during a commit, so that the transaction may be stored or not."""


class ReadTimeoutError(Exception):
    """The time in which a reader may read is over."""


STORE_ERRORS = (sqlite3.Error, OSError, StoreError, StoreUnavailableError)
"""Errors of a database, after which an attempt may succeed: it is busy, gone or damaged."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The words in which a database differs.

    Args:
        row: the name of the column that identifies a row within a transaction.
        gold_content: a gold measurement, as the table of damaged rows stores it.
        is_whole_step: whether a step is a whole number, which a damaged file may not hold.
    """

    row: str
    gold_content: str
    is_whole_step: str


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """The number of rows that the statement changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row; None after the last."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection to a database of runs."""

    @property
    def dialect(self) -> Dialect:
        """The words of its database."""
        ...

    @property
    def is_usable(self) -> bool:
        """Whether it still leads to the database at its address."""
        ...

    def execute(self, statement: str, parameters: Sequence[object] = (), /) -> Cursor:
        """Run a statement with a value for each `?`."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Hold the only transaction that writes: commit it at the end, undo it on an error."""
        ...

    def bytes_in_use(self) -> int | None:
        """Return the bytes that all runs take together; None if it is not the time to count."""
        ...

    def check_written(self, runs: set[str]) -> None:
        """Check that a reader finds these runs as they were written.

        Raises:
            LostCommitError: it does not.
        """
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Database(Protocol):
    """A place of runs, to which connections are made."""

    def __str__(self) -> str:
        """Return its address, without a password."""
        ...

    def connect(self) -> Connection:
        """Return a connection for a writer, with all tables in place.

        Raises:
            StoreError, StoreUnavailableError: it cannot be used.
        """
        ...

    def reading(self, is_over: IsOver) -> AbstractContextManager[Connection]:
        """Provide a connection for one query; `is_over` returns whether its time is over.

        Raises:
            ReadTimeoutError: the time is over.
        """
        ...
