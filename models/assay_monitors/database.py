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


class TablesError(StoreError, StoreUnavailableError):
    """The tables of a shared database are missing and cannot be made, or are of another version."""


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
        is_shared: whether many servers write it.
        is_count_slow: whether counting the bytes in use takes long.
        alert_tables: the tables of alerts, which outlive their run until its alerts have ended.
    """

    row: str
    gold_content: str
    is_whole_step: str
    is_shared: bool = False
    is_count_slow: bool = False
    alert_tables: tuple[str, ...] = ()


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


class Reader(Protocol):
    """A connection that reads."""

    @property
    def dialect(self) -> Dialect:
        """The words of its database."""
        ...

    def execute(self, statement: str, parameters: Sequence[object] = (), /) -> Cursor:
        """Run a statement with a value for each `?`."""
        ...


class Connection(Reader, Protocol):
    """A writer's connection."""

    @property
    def is_usable(self) -> bool:
        """Whether it leads to the database at its address."""
        ...

    def reconnect(self) -> None:
        """Connect anew.

        Raises:
            StoreError, StoreUnavailableError, sqlite3.Error, OSError: the database cannot be used.
        """
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Hold the only transaction that writes: commit it at the end, undo it on an error."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """Hold a transaction that reads."""
        ...

    def was_committed(self) -> bool:
        """Return whether the latest transaction was committed, after a `CommitInDoubtError`.

        Raises:
            StoreUnavailableError: that is not known now.
        """
        ...

    def bytes_in_use(self) -> int:
        """Return the bytes that all runs take together."""
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

    def connect(self) -> Connection:
        """Return a connection for a writer, with all tables in place.

        A server that cannot be reached now is no error: the connection is not usable yet.

        Raises:
            StoreError: it is no database of runs, or of another version.
        """
        ...

    def reading(self, is_over: IsOver) -> AbstractContextManager[Reader]:
        """Provide a connection for one query; `is_over` returns whether its time is over.

        Raises:
            ReadTimeoutError: the time is over.
        """
        ...

    def close(self) -> None:
        """Close the connections that are kept for readers."""
        ...
