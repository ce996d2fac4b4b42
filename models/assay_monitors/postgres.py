"""PostgresDatabase: runs in a PostgreSQL database, which servers on many machines share."""

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from assay_monitors.database import (
    IsOver,
    StoreError,
    StoreUnavailableError,
)
from assay_monitors.postgres_connection import (
    Connect,
    PostgresConnection,
    Reader,
    Readers,
    reason_of,
)
from assay_monitors.postgres_tables import prepare_tables

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 3
RETRY_SECONDS = 1.0
"""Seconds after a failed connection in which the next is not tried."""
# A broken network is noticed within half a minute, and not after two hours.
DEFAULTS: dict[str, str | int] = {
    "application_name": "assay",
    "client_encoding": "UTF8",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
PORTS = re.compile("[0-9,]*")
E = TypeVar("E", StoreError, StoreUnavailableError)


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
        given = _parameters(url)
        self._address = make_conninfo("", **{**DEFAULTS, **given})
        self._place = f"{given.get('host', 'localhost')}/{given.get('dbname', '')}"
        self._gate = _Gate()
        self._readers = Readers(lambda: self._gate.run(self._open))

    def __str__(self) -> str:
        return f"the PostgreSQL database {self._place}"

    def connect(self) -> PostgresConnection:
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
    def reading(self, is_over: IsOver) -> Iterator[Reader]:
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


def _parameters(url: str) -> dict[str, Any]:
    """Return the parameters of a URL; it must not show a part of the password as another one.

    An `@` or a slash in a password that is not written as %XX moves the rest of it into the host
    or the name of the database, which the log repeats.

    Raises:
        ValueError: see `PostgresDatabase`.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        given = {"host": "@"}
    place = f"{given.get('host', '')}{given.get('dbname', '')}"
    if "@" in place or not PORTS.fullmatch(str(given.get("port", ""))):
        raise ValueError(
            "must be like postgresql://user:password@host/database, with special characters "
            "of the password as %XX"
        )
    return given


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
            raise self._fail(StoreUnavailableError(reason_of(failure))) from failure
        finally:
            self._attempt.release()
        self._error = None
        return connection

    def _fail(self, error: E) -> E:
        self._error, self._failed_at = error, time.monotonic()
        return error
