"""RunStore: writes runs to a database: an SQLite file, or one that replicas share.

A killed process loses nothing that was committed.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from assay_monitors.admission import (
    ANY_WRITER,
    Places,
    Refusal,
    Writer,
    make_room,
    owner_of,
)
from assay_monitors.changes import Changes, Outcome
from assay_monitors.codec import DamagedRowError, gold_to_json, pack_summary, unpack_summary
from assay_monitors.database import Database, StoreError, StoreUnavailableError
from assay_monitors.retention import (
    TABLES,
    Retention,
    delete_run,
    free_space,
    kept_owners,
    merge_long_series,
    set_aside,
    set_aside_damaged,
)
from assay_monitors.run_file import RunFile
from assay_monitors.summaries import Summary

COMMITS_PER_MERGE = 64
MAX_SEEN_RUNS = 10_000

Edit = Literal["done", "not_found", "name_taken", "forbidden", "too_many_pins"]
"""The outcome of an edit or a deletion of a run."""


class RunStore:
    """Writes runs to one database.

    A summary that the database has already is added to, not replaced, in one transaction; so
    several processes may share it. A file and its folder, if it makes them, are private to the
    user. A database that cannot be reached is opened by the first write that reaches it.

    Args:
        place: the database, or the path of an SQLite file.
        retention: the limits of the database.
        clock: seconds since the epoch.

    Raises:
        StoreError: it is no database of runs, or of another version.
    """

    def __init__(
        self, place: Path | Database, retention: Retention, clock: Callable[[], float]
    ) -> None:
        database: Database = RunFile(place) if isinstance(place, Path) else place
        self._retention = retention
        self._clock = clock
        self._commits = 0
        self._seen: set[str] = set()
        self._latest: Outcome | None = None
        self._connection = database.connect()

    def reopen(self) -> None:
        """Open the database anew, after it was deleted, replaced or restarted.

        Raises:
            StoreError, StoreUnavailableError, sqlite3.Error, OSError: it cannot be used.
        """
        self._connection.reconnect()

    @property
    def is_in_place(self) -> bool:
        """Whether the database that is written is the one at its address."""
        return self._connection.is_usable

    def owners(self) -> dict[str, str]:
        """Return the runs that are kept, and the owner of each; none if it cannot be reached."""
        with suppress(StoreError, StoreUnavailableError), self._connection.snapshot():
            return {kept.run: kept.owner for kept in kept_owners(self._connection)}
        return {}

    def owner(self, run: str) -> str | None:
        """Return the owner of a run; None if it is not kept."""
        with self._connection.snapshot():
            return owner_of(self._connection, run)

    def write(self, changes: Changes) -> Outcome:
        """Add the changes, but for those that find no place, or nothing.

        Raises:
            sqlite3.Error: nothing was written: the disk is full, or the file busy for 5 s.
            StoreUnavailableError: nothing was written: the database cannot be used now.
            CommitInDoubtError: they may be written or not, see `was_committed`.
        """
        # Retention runs in the same transaction: an error always means that nothing was written,
        # and that the write may be tried again.
        with self._connection.transaction():
            now = self._clock()
            outcome = Outcome(now)
            runs = {run for run in sorted(changes.runs) if self._admit(changes, run, now, outcome)}
            places = Places(self._connection, self._retention)
            self._add(changes, runs, places, outcome)
            self._add_gold(changes, runs, places, outcome)
            for run in runs & changes.last_steps.keys():
                self._name_step(run, changes.last_steps[run], changes.named_at.get(run, now), now)
            is_merging = self._commits % COMMITS_PER_MERGE == 0
            if is_merging:
                merge_long_series(self._connection, self._retention)
            if is_merging or not self._connection.dialect.is_count_slow:
                free_space(self._connection, self._retention)
            self._latest = outcome
        self._commits += 1
        if len(self._seen) > MAX_SEEN_RUNS:
            self._seen.clear()
        self._seen |= outcome.owners.keys()
        return outcome

    def was_committed(self) -> Outcome | None:
        """Return the outcome of a write that was in doubt; None if nothing was written.

        Raises:
            StoreUnavailableError: that is not known now.
        """
        return self._latest if self._connection.was_committed() else None

    def check_written(self, runs: set[str]) -> None:
        """Check that a reader finds these runs as they were written.

        Raises:
            LostCommitError: it does not.
        """
        self._connection.check_written(runs)

    def delete(self, run: str, writer: Writer = ANY_WRITER) -> Edit:
        """Delete a run.

        Raises:
            sqlite3.Error: nothing was deleted.
        """
        with self._connection.transaction():
            refusal = self._refusal(run, writer)
            if refusal is None:
                delete_run(self._connection, run)
        self._seen.discard(run)
        return refusal or "done"

    def forget(self, run: str) -> None:
        """Take in that another server has deleted a run: what is written next begins it anew."""
        self._seen.discard(run)

    def edit(
        self,
        run: str,
        *,
        name: str | None = None,
        note: str | None = None,
        pinned: bool | None = None,
        writer: Writer = ANY_WRITER,
    ) -> Edit:
        """Give a run another name, a note, pin or unpin it; an empty note removes the note.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        with self._connection.transaction():
            refusal = self._refusal(run, writer)
            if refusal is not None:
                return refusal
            if name is not None and name != run and owner_of(self._connection, name) is not None:
                return "name_taken"
            if pinned and not self._may_pin(run):
                return "too_many_pins"
            if pinned is not None:
                self._set_detail(run, "pinned", int(pinned))
            if note is not None:
                self._set_detail(run, "note", note or None)
            tables = (*TABLES, *self._connection.dialect.alert_tables)
            for table in tables if name is not None else ():
                statement = f"UPDATE {table} SET run = ? WHERE run = ?"  # noqa: S608 our own names
                self._connection.execute(statement, (name, run))
        if name is not None:
            self._seen.discard(run)
        return "done"

    def set_aside_damaged(self, run: str) -> int:
        """Set aside all rows of a run that cannot be read; return their number.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        with self._connection.transaction():
            return set_aside_damaged(self._connection, run)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _refusal(self, run: str, writer: Writer) -> Edit | None:
        owner = owner_of(self._connection, run)
        if owner is None:
            return "not_found"
        return None if writer.may_change(owner) else "forbidden"

    def _may_pin(self, run: str) -> bool:
        owner = owner_of(self._connection, run)
        pinned = [
            kept.run
            for kept in kept_owners(self._connection)
            if kept.is_pinned and kept.owner == owner
        ]
        return run in pinned or len(pinned) < self._retention.pins

    def _admit(self, changes: Changes, run: str, now: float, outcome: Outcome) -> bool:
        """Return whether a run's changes are written; it is made if it is new."""
        owner, wanted = owner_of(self._connection, run), changes.owners.get(run, "")
        reason: Refusal | None = None
        if owner is None and run in self._seen and self._connection.dialect.is_shared:
            # Its items were recorded before it was deleted; what follows begins it anew.
            self._seen.discard(run)
            reason = "deleted"
        elif owner is None:
            reason = make_room(self._connection, self._retention, wanted, now)
        elif run in changes.owners and owner != wanted:
            reason = "owner"  # another process has made a run of this name
        if reason is not None:
            outcome.refused[reason] += changes.of_run(run).size
            return False
        self._connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?) ON CONFLICT (run) DO UPDATE SET last_seen = ?",
            (run, now, now, now),
        )
        if owner is None and wanted:
            self._set_detail(run, "owner", wanted)
        outcome.owners[run] = wanted if owner is None else owner
        return True

    def _add(self, changes: Changes, runs: set[str], places: Places, outcome: Outcome) -> None:
        row_id = self._connection.dialect.row
        for window, summary in changes.windows.items():
            if window.run not in runs:
                continue
            if not places.has_stream(window.run, window.model, window.split):
                outcome.refused["streams"] += max(1, summary.items)
                continue
            # A copy: if the commit fails, the caller's summary must be as it was.
            whole = Summary()
            whole.merge(summary)
            for row, known in self._connection.execute(
                f"SELECT {row_id}, summary FROM windows"  # noqa: S608 our own names
                " WHERE (run, model, split, step) = (?, ?, ?, ?)",
                window,
            ).fetchall():
                try:
                    whole.merge(unpack_summary(known))
                except DamagedRowError:
                    set_aside(self._connection, "windows", row)
                    outcome.damaged += 1
            self._connection.execute(
                "INSERT INTO windows VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (run, model, split, step) DO UPDATE SET summary = excluded.summary",
                (*window, pack_summary(whole)),
            )

    def _add_gold(self, changes: Changes, runs: set[str], places: Places, outcome: Outcome) -> None:
        for key, point in changes.gold.items():
            run, source, _ = key
            if run not in runs:
                continue
            if not places.has_source(run, source):
                outcome.refused["sources"] += 1
                continue
            self._connection.execute(
                "INSERT INTO gold VALUES (?, ?, ?, ?)"
                " ON CONFLICT (run, source, step) DO UPDATE SET point = excluded.point",
                (*key, gold_to_json(point)),
            )

    def _name_step(self, run: str, step: int, named_at: float, now: float) -> None:
        """Store the step that was named last, unless another process stored one of later.

        A time that lies in the future comes from a wrong clock, and does not count.
        """
        self._connection.execute(
            "INSERT INTO details (run, last_step, step_named_at) VALUES (?, ?, ?)"
            " ON CONFLICT (run) DO UPDATE SET last_step = excluded.last_step,"
            " step_named_at = excluded.step_named_at"
            " WHERE coalesce(details.step_named_at, 0) <= excluded.step_named_at"
            " OR details.step_named_at > ?",
            (run, step, named_at, now),
        )

    def _set_detail(self, run: str, column: str, value: object) -> None:
        self._connection.execute(
            f"INSERT INTO details (run, {column}) VALUES (?, ?)"  # noqa: S608 our own names
            f" ON CONFLICT (run) DO UPDATE SET {column} = excluded.{column}",
            (run, value),
        )
