"""RunFile: runs in an SQLite file: its tables, its permissions, and columns of later releases."""

import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path

from assay_monitors.database import (
    BUSY_SECONDS,
    Cursor,
    Dialect,
    IsOver,
    LostCommitError,
    ReadTimeoutError,
    StoreError,
)

logger = logging.getLogger(__name__)

VERSION = 1
INSTRUCTIONS_PER_CHECK = 10_000
"""Steps of SQLite's machine, a tenth of a millisecond, between two checks of the time."""
DIALECT = Dialect(row="rowid", gold_content="point", is_whole_step="typeof(step) = 'integer'")
MAX_LOG_BYTES = 16 * 2**20
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, first_seen REAL NOT NULL, last_seen REAL NOT NULL);
CREATE TABLE IF NOT EXISTS windows (
    run TEXT NOT NULL, model TEXT NOT NULL, split TEXT NOT NULL, step INTEGER NOT NULL,
    summary BLOB NOT NULL, PRIMARY KEY (run, model, split, step));
CREATE TABLE IF NOT EXISTS gold (
    run TEXT NOT NULL, source TEXT NOT NULL, step INTEGER NOT NULL,
    point TEXT NOT NULL, PRIMARY KEY (run, source, step));
CREATE TABLE IF NOT EXISTS details (run TEXT PRIMARY KEY, note TEXT, last_step INTEGER);
CREATE TABLE IF NOT EXISTS damaged (
    run TEXT NOT NULL, kind TEXT NOT NULL, name TEXT, split TEXT, step, content);
CREATE INDEX IF NOT EXISTS damaged_runs ON damaged (run);
PRAGMA user_version = {VERSION};
COMMIT;
"""
ADDED = (
    ("owner", "TEXT"),
    ("pinned", "INTEGER NOT NULL DEFAULT 0"),
    ("step_named_at", "REAL"),
)
"""Columns of `details` that a file of an earlier release lacks; that release ignores them."""


class RunFile:
    """An SQLite file of runs with a write-ahead log, which several processes of a machine share.

    Args:
        path: of the file; made if it is missing, its folder is not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def connect(self) -> "FileConnection":
        """Return a connection for a writer.

        Raises:
            StoreError: it is not a file of runs, or of another version.
        """
        return FileConnection(self.path)

    @contextmanager
    def reading(self, is_over: IsOver) -> Iterator["FileReader"]:
        """Provide a connection that reads; see `Database.reading`."""
        connection = open_reader(self.path)
        connection.set_progress_handler(is_over, INSTRUCTIONS_PER_CHECK)
        try:
            yield FileReader(connection)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise ReadTimeoutError from error
            raise
        finally:
            connection.close()

    def close(self) -> None:
        """Close nothing: each reader has closed its connection."""


class FileReader:
    """A connection to an SQLite file of runs."""

    dialect = DIALECT

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[object] = (), /) -> Cursor:
        """Run a statement with a value for each `?`."""
        return self._connection.execute(statement, parameters)


class FileConnection(FileReader):
    """A writer's connection to an SQLite file of runs; see `Connection`."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_file(path))
        self._path = path
        self._file = identity_of(path)

    @property
    def is_usable(self) -> bool:
        """Whether the file that is written is the one at its path."""
        return identity_of(self._path) == self._file is not None

    def reconnect(self) -> None:
        """Open the file anew; make it if it is missing.

        Raises:
            StoreError, sqlite3.Error, OSError: it cannot be used.
        """
        logger.warning("the file of runs was deleted or replaced: it is opened anew")
        self._connection.close()
        self._connection = open_file(self._path)
        self._file = identity_of(self._path)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the only transaction that writes; see `Connection.transaction`."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self.execute("ROLLBACK")

    def snapshot(self) -> AbstractContextManager[None]:
        """Hold nothing: each query of a file reads what was committed last."""
        return nullcontext()

    def was_committed(self) -> bool:
        """Return True: a commit of a file that fails is rolled back."""
        return True

    def bytes_in_use(self) -> int:
        """Return the bytes of the pages in use."""
        pages, free, size = (
            int(self.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def check_written(self, runs: set[str]) -> None:
        """Check that a reader finds these runs in the file at the path.

        Raises:
            LostCommitError: it does not.
        """
        if not self.is_usable:
            raise LostCommitError("the file was deleted or replaced")
        wanted = dict(_last_seen(self._connection, runs))
        with closing(open_reader(self._path)) as reader:
            seen = dict(_last_seen(reader, runs))
        # Another process may have written since, or deleted a run.
        if any(time > seen.get(run, time) for run, time in wanted.items()):
            raise LostCommitError("the file does not have what was written")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def make_private_folder(folder: Path) -> None:
    """Make a folder and those above it, for this user alone; one that exists is left as it is.

    Raises:
        OSError: it cannot be made.
    """
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def decode_text(data: bytes) -> str:
    """Return a text of the file, with a mark in the place of bytes that are damaged."""
    return data.decode(errors="replace")


def open_file(path: Path) -> sqlite3.Connection:
    """Return a connection to the file, with all tables, and readable by this user alone."""
    _make_private(path)
    # The thread that writes is not the one that opens.
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = decode_text
    try:
        _prepare(connection)
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"{path} cannot be used: {error}") from error
    except StoreError:
        connection.close()
        raise
    return connection


def _last_seen(connection: sqlite3.Connection, runs: set[str]) -> list[tuple[str, float]]:
    return [
        row
        for run in runs
        for row in connection.execute("SELECT run, last_seen FROM runs WHERE run = ?", (run,))
    ]


def open_reader(path: Path) -> sqlite3.Connection:
    """Return a connection that reads the file at its path."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    # A generator may be closed by another thread than the one that began it.
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)
    connection.text_factory = decode_text
    return connection


def _make_private(path: Path) -> None:
    """Make the file if it is missing, and take it from all other users; SQLite's own follow it."""
    with suppress(OSError):  # SQLite says better than this why it cannot be opened
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE))
    for known in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        with suppress(OSError):  # it is missing, or belongs to another user
            known.chmod(PRIVATE_FILE)


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return the device and number of a file; None if it is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _prepare(connection: sqlite3.Connection) -> None:
    version, tables = connection.execute(
        "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
    ).fetchone()
    if version != VERSION and (version or tables):
        raise StoreError(f"the file has version {version}, this Assay reads {VERSION}")
    connection.execute("PRAGMA journal_mode = WAL")
    # A kill of the process needs no flush to the disk. A power cut may cost the last commits, and
    # never the file.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}")
    connection.executescript(SCHEMA)
    connection.execute("BEGIN IMMEDIATE")
    known = {
        name for (name,) in connection.execute("SELECT name FROM pragma_table_info('details')")
    }
    for name, kind in ADDED:
        if name not in known:
            connection.execute(f"ALTER TABLE details ADD COLUMN {name} {kind}")
    connection.execute("COMMIT")
