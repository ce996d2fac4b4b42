"""RunStore: writes runs to an SQLite file with a write-ahead log.

A killed process loses nothing that was committed.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from assay_monitors.codec import gold_to_json, pack_summary, unpack_summary
from assay_monitors.gold import GoldPoint
from assay_monitors.observations import Window
from assay_monitors.retention import TABLES, Retention, delete_run, retain
from assay_monitors.summaries import Summary

VERSION = 1
BUSY_SECONDS = 5.0
COMMITS_PER_RETENTION = 64
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
PRAGMA user_version = {VERSION};
COMMIT;
"""

GoldKey = tuple[str, str, int]
Edit = Literal["done", "not_found", "name_taken"]
"""The outcome of an edit of a run."""


class StoreError(Exception):
    """The file cannot be used: it is not a database, or another version of Assay wrote it."""


@dataclass(slots=True)
class Changes:
    """Data not yet written: additions by window, gold by run, source and step.

    `last_steps` has the step that the trainer named last for training, by run.
    """

    windows: dict[Window, Summary] = field(default_factory=dict)
    gold: dict[GoldKey, GoldPoint] = field(default_factory=dict)
    last_steps: dict[str, int] = field(default_factory=dict)

    @property
    def runs(self) -> set[str]:
        """The runs that the changes belong to."""
        return {window.run for window in self.windows} | {run for run, _, _ in self.gold}

    def __bool__(self) -> bool:
        return bool(self.windows or self.gold)


class RunStore:
    """Writes runs to one file.

    A summary that the file has already is added to, not replaced, in one transaction; so several
    processes may share a file.

    Args:
        path: of the file; made if it is missing, its folder is not.
        retention: the limits of the file.
        clock: seconds since the epoch.

    Raises:
        StoreError: the file is not a file of runs, or of another version.
    """

    def __init__(self, path: Path, retention: Retention, clock: Callable[[], float]) -> None:
        self._retention = retention
        self._clock = clock
        self._commits = 0
        # The thread that writes is not the one that opens.
        self._connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(self._connection)
        except sqlite3.Error as error:
            self._connection.close()
            raise StoreError(f"{path} cannot be used: {error}") from error
        except StoreError:
            self._connection.close()
            raise

    def runs(self) -> set[str]:
        """Return the runs that are kept."""
        return {run for (run,) in self._connection.execute("SELECT run FROM runs")}

    def write(self, changes: Changes) -> None:
        """Add all of the changes, or nothing.

        Raises:
            sqlite3.Error: nothing was written: the disk is full, or the file busy for 5 s.
        """
        # Retention runs in the same transaction: an error always means that nothing was written,
        # and that the write may be tried again.
        with self._transaction():
            now = self._clock()
            for run in sorted(changes.runs):
                self._touch(run, now)
            self._add(changes.windows)
            self._connection.executemany(
                "INSERT OR REPLACE INTO gold VALUES (?, ?, ?, ?)",
                [(*key, gold_to_json(point)) for key, point in changes.gold.items()],
            )
            self._connection.executemany(
                "INSERT INTO details (run, last_step) VALUES (?, ?)"
                " ON CONFLICT (run) DO UPDATE SET last_step = excluded.last_step",
                changes.last_steps.items(),
            )
            if self._commits % COMMITS_PER_RETENTION == 0:
                retain(self._connection, self._retention)
        self._commits += 1

    def delete(self, run: str) -> bool:
        """Delete a run; return False where it is not kept.

        Raises:
            sqlite3.Error: nothing was deleted.
        """
        with self._transaction():
            is_kept = self._has(run)
            delete_run(self._connection, run)
        return is_kept

    def edit(self, run: str, *, name: str | None = None, note: str | None = None) -> Edit:
        """Give a run another name, a note, or both; an empty note removes it.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        with self._transaction():
            if not self._has(run):
                return "not_found"
            if name is not None and name != run and self._has(name):
                return "name_taken"
            if note is not None:
                self._connection.execute(
                    "INSERT INTO details (run, note) VALUES (?, ?)"
                    " ON CONFLICT (run) DO UPDATE SET note = excluded.note",
                    (run, note or None),
                )
            for table in TABLES if name is not None else ():
                statement = f"UPDATE {table} SET run = ? WHERE run = ?"  # noqa: S608 our own names
                self._connection.execute(statement, (name, run))
        return "done"

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _has(self, run: str) -> bool:
        statement = "SELECT count(*) FROM runs WHERE run = ?"
        return bool(self._connection.execute(statement, (run,)).fetchone()[0])

    def _touch(self, run: str, now: float) -> None:
        self._connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?) ON CONFLICT (run) DO UPDATE SET last_seen = ?",
            (run, now, now, now),
        )

    def _add(self, windows: Mapping[Window, Summary]) -> None:
        for window, summary in windows.items():
            # A copy: if the commit fails, the caller's summary must be as it was.
            whole = Summary()
            whole.merge(summary)
            for (known,) in self._connection.execute(
                "SELECT summary FROM windows WHERE (run, model, split, step) = (?, ?, ?, ?)", window
            ):
                whole.merge(unpack_summary(known))
            self._connection.execute(
                "INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?)",
                (*window, pack_summary(whole)),
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


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
    connection.executescript(SCHEMA)
