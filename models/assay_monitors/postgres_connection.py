"""Connections to a PostgreSQL database of runs: that of a writer, and those of readers."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Any

import psycopg
from psycopg import errors

from assay_monitors.database import (
    BUSY_SECONDS,
    CommitInDoubtError,
    Cursor,
    Dialect,
    ReadTimeoutError,
    StoreUnavailableError,
)
from assay_monitors.postgres_tables import LOCK, SCHEMA

READ_SECONDS = 10.0
WRITE_SECONDS = 20.0
MAX_READERS = 5
DIALECT = Dialect(
    row="ctid",
    gold_content="convert_to(point, 'UTF8')",
    is_whole_step="TRUE",
    is_shared=True,
    is_count_slow=True,
    alert_tables=("alerts",),
)
BYTES = """
SELECT coalesce((SELECT sum(64 + length(model) + length(split) + length(summary)) FROM windows), 0)
    + coalesce((SELECT sum(64 + length(source) + length(point)) FROM gold), 0)
    + coalesce((SELECT sum(64 + length(content)) FROM damaged), 0)
"""
# In one message: a session keeps no setting, so that a pooler may share it among transactions.
BEGIN_WRITING = f"""
BEGIN; SET LOCAL search_path TO {SCHEMA};
SET LOCAL lock_timeout = {round(1e3 * BUSY_SECONDS)};
SET LOCAL statement_timeout = {round(1e3 * WRITE_SECONDS)};
SET LOCAL idle_in_transaction_session_timeout = {round(1e3 * WRITE_SECONDS)};
{LOCK}
"""
BEGIN_READING = f"""
BEGIN READ ONLY; SET LOCAL search_path TO {SCHEMA};
SET LOCAL statement_timeout = {round(1e3 * READ_SECONDS)};
SET LOCAL idle_in_transaction_session_timeout = {round(2e3 * READ_SECONDS)}
"""
# A value that is refused is refused again: what it belongs to is given up, not tried again.
FINAL_ERRORS = (psycopg.DataError, psycopg.IntegrityError)
MISSING_TABLES = (errors.UndefinedTable, errors.InvalidSchemaName)

Connect = Callable[[], "psycopg.Connection[Any]"]


class PostgresConnection:
    """A connection to a PostgreSQL database of runs; see `Connection`.

    Args:
        connect: opens it.
    """

    dialect = DIALECT

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: psycopg.Connection[Any] | None = None
        self._transaction: str | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it is open."""
        return self._connection is not None and not self._connection.closed

    def reconnect(self) -> None:
        """Connect anew.

        Raises:
            StoreError: the tables are missing and cannot be made, or are of another version.
            StoreUnavailableError: the database cannot be reached now.
        """
        self.close()
        self._connection = self._connect()

    def execute(self, statement: str, parameters: Sequence[object] = (), /) -> Cursor:
        """Run a statement.

        Raises:
            StoreUnavailableError: the database cannot be used now.
            psycopg.DataError, psycopg.IntegrityError: it refuses a value.
        """
        return self._run(_translated(statement), [*map(_storable, parameters)])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the only transaction that writes; see `Connection.transaction`.

        Raises:
            CommitInDoubtError: see `was_committed`.
        """
        cursor = self._begin(BEGIN_WRITING)
        while cursor.nextset():
            pass
        _, self._transaction = cursor.fetchone() or (None, None)
        is_complete = False
        try:
            yield
            is_complete = True
        finally:
            if not is_complete:
                self._roll_back()
        self._commit()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Hold a transaction that reads."""
        self._begin(BEGIN_READING)
        try:
            yield
        finally:
            self._roll_back()

    def was_committed(self) -> bool:
        """Return whether the latest transaction was committed.

        Raises:
            StoreUnavailableError: that is not known now.
        """
        try:
            with self.snapshot():
                cursor = self._run(b"SELECT pg_xact_status(%s::xid8)", [self._transaction])
                (status,) = cursor.fetchone() or (None,)
        except psycopg.DataError:  # another server took over, which has not come that far
            return False
        if status == "in progress":
            raise StoreUnavailableError("an earlier commit has not ended yet")
        return bool(status == "committed")

    def bytes_in_use(self) -> int:
        """Return the bytes of all rows; it reads the size of each."""
        return int(self.execute(BYTES).fetchone()[0])

    def check_written(self, runs: set[str]) -> None:
        """Check nothing: the server has confirmed the commit."""

    def close(self) -> None:
        """Close it."""
        if self._connection is not None:
            self._connection.close()

    def _run(
        self, statement: str | bytes, parameters: Sequence[object] | None = None
    ) -> "psycopg.Cursor[Any]":
        if self._connection is None:
            raise StoreUnavailableError("there is no connection yet")
        query = statement.encode() if isinstance(statement, str) else statement
        try:
            return self._connection.execute(query, parameters)
        except FINAL_ERRORS:
            raise
        except MISSING_TABLES as error:  # a new connection makes them
            self.close()
            raise StoreUnavailableError(reason_of(error)) from error
        except psycopg.Error as error:
            raise StoreUnavailableError(reason_of(error)) from error

    def _begin(self, statement: str) -> "psycopg.Cursor[Any]":
        """Begin a transaction; connect anew where the server has ended the connection."""
        try:
            return self._run(statement)
        except StoreUnavailableError:
            if self.is_usable:  # another one writes for too long
                self._roll_back()
                raise
        self.reconnect()
        return self._run(statement)

    def _commit(self) -> None:
        try:
            self._run(b"COMMIT")
        except StoreUnavailableError as error:
            if self.is_usable:  # the server has answered: nothing was committed
                raise
            raise CommitInDoubtError(str(error)) from error

    def _roll_back(self) -> None:
        try:
            self._run(b"ROLLBACK")
        except StoreUnavailableError:
            self.close()


class Reader:
    """A connection within a transaction that reads."""

    dialect = DIALECT

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[object] = (), /) -> Cursor:
        """Run a query; see `PostgresDatabase.reading`."""
        try:
            return self._connection.execute(_translated(statement), [*map(_storable, parameters)])
        except errors.QueryCanceled as error:
            raise ReadTimeoutError from error
        except psycopg.Error as error:
            raise StoreUnavailableError(reason_of(error)) from error


class Readers:
    """The connections of readers, a bounded number.

    A connection that the server has closed in the meantime is replaced, and a server that cannot be
    reached is an error at once, with its reason: a pool that retries in the background has neither.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._idle: SimpleQueue[psycopg.Connection[Any]] = SimpleQueue()
        self._places = threading.BoundedSemaphore(MAX_READERS)

    @contextmanager
    def use(self) -> Iterator[Reader]:
        """Provide a connection within a transaction that reads.

        Raises:
            StoreUnavailableError: the server cannot be reached, or all connections are in use.
        """
        if not self._places.acquire(timeout=BUSY_SECONDS):
            raise StoreUnavailableError("too many requests read it now")
        try:
            connection = self._begin()
            try:
                yield Reader(connection)
            finally:
                self._end(connection)
        finally:
            self._places.release()

    def close(self) -> None:
        """Close the connections that are not in use."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    def _begin(self) -> "psycopg.Connection[Any]":
        with suppress(Empty):
            while True:
                connection = self._idle.get_nowait()
                with suppress(psycopg.Error):
                    connection.execute(BEGIN_READING.encode())
                    return connection
                connection.close()
        connection = self._connect()
        try:
            connection.execute(BEGIN_READING.encode())
        except psycopg.Error as error:
            connection.close()
            raise StoreUnavailableError(reason_of(error)) from error
        return connection

    def _end(self, connection: "psycopg.Connection[Any]") -> None:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
        else:
            self._idle.put(connection)


@lru_cache(256)
def _translated(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def _storable(value: object) -> object:
    """Return a value as the database takes it: a text without NUL characters."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def reason_of(error: psycopg.Error) -> str:
    """Return the first line of an error's text, which never holds a password."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
