"""PostgresDatabase: runs in a PostgreSQL database, which servers on many machines share."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from assay_monitors.database import (
    BUSY_SECONDS,
    CommitInDoubtError,
    Cursor,
    Dialect,
    IsOver,
    ReadTimeoutError,
    StoreError,
    StoreUnavailableError,
)
from assay_monitors.postgres_tables import LOCK, SCHEMA, prepare_tables

logger = logging.getLogger(__name__)

READ_SECONDS = 10.0
WRITE_SECONDS = 20.0
CONNECT_SECONDS = 3
RETRY_SECONDS = 1.0
"""Seconds after a failed connection in which the next is not tried."""
MAX_READERS = 5
# A broken network is noticed within half a minute, and not after two hours.
DEFAULTS: dict[str, str | int] = {
    "application_name": "assay",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
DIALECT = Dialect(
    row="ctid",
    gold_content="convert_to(point, 'UTF8')",
    is_whole_step="TRUE",
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

E = TypeVar("E", StoreError, StoreUnavailableError)
Connect = Callable[[], "psycopg.Connection[Any]"]


class PostgresDatabase:
    """A PostgreSQL database of runs, in the schema `assay`, that many processes share.

    It connects when it is used, and again after the server was restarted or lost. Readers share at
    most five connections; a writer has one of its own.

    Args:
        url: `postgresql://user:password@host/database` with the parameters of libpq, such as
            `sslmode`.

    Raises:
        ValueError: it is not such a URL; the message does not repeat it.
    """

    def __init__(self, url: str) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.Error:
            raise ValueError(
                "must be like postgresql://user:password@host/database, with special characters "
                "of the password as %XX"
            ) from None
        self._address = make_conninfo("", **{**DEFAULTS, **given})
        self._place = f"{given.get('host', 'localhost')}/{given.get('dbname', '')}"
        self._gate = _Gate()
        self._readers = _Readers(lambda: self._gate.run(self._open))

    def __str__(self) -> str:
        return f"the PostgreSQL database {self._place}"

    def connect(self) -> "PostgresConnection":
        """Return a connection for a writer.

        If the database cannot be used now, the reason is logged, and `reconnect` tries again.
        """
        connection = PostgresConnection(lambda: self._gate.run(self._open_prepared))
        try:
            connection.reconnect()
        except (StoreError, StoreUnavailableError) as error:
            logger.error("runs cannot be kept in %s yet: %s", self, error)
        return connection

    @contextmanager
    def reading(self, is_over: IsOver) -> Iterator["_Reader"]:
        """Provide a connection that reads; a statement ends after ten seconds.

        Raises:
            ReadTimeoutError: a statement took too long.
            StoreUnavailableError: the database cannot be read now.
        """
        with self._readers.use() as connection:
            yield connection

    def close(self) -> None:
        """Close the connections that no reader uses."""
        self._readers.close()

    def _open(self) -> "psycopg.Connection[Any]":
        return psycopg.connect(self._address, autocommit=True, prepare_threshold=None)

    def _open_prepared(self) -> "psycopg.Connection[Any]":
        connection = self._open()
        try:
            prepare_tables(connection)
        except (StoreError, psycopg.Error):
            connection.close()
            raise
        return connection


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
        cursor = self._run(b"SELECT pg_xact_status(%s::xid8)", [self._transaction])
        (status,) = cursor.fetchone() or (None,)
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
        except psycopg.Error as error:
            raise StoreUnavailableError(_reason(error)) from error

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


class _Reader:
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
            raise StoreUnavailableError(_reason(error)) from error


class _Readers:
    """The connections of readers, a bounded number.

    A connection that the server has closed in the meantime is replaced, and a server that cannot be
    reached is an error at once, with its reason: a pool that retries in the background has neither.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._idle: SimpleQueue[psycopg.Connection[Any]] = SimpleQueue()
        self._places = threading.BoundedSemaphore(MAX_READERS)

    @contextmanager
    def use(self) -> Iterator[_Reader]:
        """Provide a connection within a transaction that reads.

        Raises:
            StoreUnavailableError: the server cannot be reached, or all connections are in use.
        """
        if not self._places.acquire(timeout=BUSY_SECONDS):
            raise StoreUnavailableError("too many requests read it now")
        try:
            connection = self._begin()
            try:
                yield _Reader(connection)
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
            raise StoreUnavailableError(_reason(error)) from error
        return connection

    def _end(self, connection: "psycopg.Connection[Any]") -> None:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
        else:
            self._idle.put(connection)


class _Gate:
    """The attempts to connect: after a failed one, the next ones fail at once for a second."""

    def __init__(self) -> None:
        self._attempt = threading.Lock()
        self._error: StoreError | StoreUnavailableError | None = None
        self._failed_at = 0.0

    def run(self, connect: Connect) -> "psycopg.Connection[Any]":
        """Connect.

        Raises:
            StoreError, StoreUnavailableError: the attempt failed, now or within the last second.
        """
        error = self._error
        if error is not None and time.monotonic() < self._failed_at + RETRY_SECONDS:
            raise type(error)(*error.args)
        # While one attempt may take seconds, nothing else waits for its outcome.
        if not self._attempt.acquire(blocking=error is None):
            raise StoreUnavailableError("it is being connected to")
        try:
            connection = connect()
        except StoreError as failure:
            self._fail(failure)
            raise
        except psycopg.Error as failure:
            raise self._fail(StoreUnavailableError(_reason(failure))) from failure
        finally:
            self._attempt.release()
        self._error = None
        return connection

    def _fail(self, error: E) -> E:
        self._error, self._failed_at = error, time.monotonic()
        return error


@lru_cache(256)
def _translated(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def _storable(value: object) -> object:
    """Return a value as the database takes it: a text without NUL characters."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _reason(error: psycopg.Error) -> str:
    """Return the first line of an error's text, which never holds a password."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
