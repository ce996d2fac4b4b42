"""The file of runs: its tables, its permissions, and the columns that later releases add."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

VERSION = 1
BUSY_SECONDS = 5.0
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
ADDED = (("owner", "TEXT"), ("pinned", "INTEGER NOT NULL DEFAULT 0"))
"""Columns of `details` that a file of an earlier release lacks; that release ignores them."""


class StoreError(Exception):
    """The file cannot be used: it is not a database, or another version of Assay wrote it."""


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
