"""Retention: deletions and merges that keep the file of runs within its limits."""

import logging
import sqlite3
from dataclasses import dataclass
from typing import Literal, NamedTuple

from assay_monitors.codec import DamagedRowError, gold_from_json, pack_summary, unpack_summary
from assay_monitors.summaries import Summary

logger = logging.getLogger(__name__)

TABLES = ("windows", "gold", "details", "damaged", "runs")
"""The tables of the file; each has the run's name in its column `run`."""
RunStream = tuple[str, str, str]
"""The run, the model and the split of a stream."""
Table = Literal["windows", "gold"]
"""A table of stored statistics."""
CONTENTS: dict[Table, str] = {
    "windows": "run, 'windows', model, split, step, summary",
    "gold": "run, 'gold', source, '', step, point",
}
"""The columns of a row that is set aside."""
FULL_SHARE, FREED_SHARE = 0.9, 0.88
"""Shares of the bytes: from the first on, space is freed until the second is in use.

A commit needs space before any is freed, and to find the largest run reads the whole file.
"""
MAX_ROUNDS = 16
"""Series that one commit thins; the next goes on, so that no commit takes long."""
MIN_STEPS = 4
"""Steps of a stream, and measurements of a source, that can still be thinned."""
SIZES = """
SELECT run, sum(size) FROM (
    SELECT run, 64 + length(model) + length(split) + length(summary) AS size FROM windows
    UNION ALL SELECT run, 64 + length(source) + length(point) FROM gold
    UNION ALL SELECT run, 64 + length(content) FROM damaged
    UNION ALL SELECT run, 64 + coalesce(length(note), 0) FROM details)
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """The limits of the file.

    `runs`, `streams` of a run (models and splits), gold `sources` of a run, `steps` of a stream or
    a source, `pins` of an owner, and `bytes` in use. A run that was seen within `min_age` seconds
    is not forgotten for a new run of its own owner.

    The most recently recorded runs are kept, each owner's share of them is the same. If a stream
    has too many steps, pairs of adjacent steps in its older half are merged. So no observation is
    lost, and the stream keeps its beginning, which rules compare with.
    """

    runs: int = 200
    streams: int = 64
    sources: int = 16
    steps: int = 2_000
    pins: int = 20
    bytes: int = 256 * 2**20
    min_age: float = 3600.0


class KeptOwner(NamedTuple):
    """A run, its owner, and whether it may be forgotten for a run of the same owner."""

    run: str
    owner: str
    is_pinned: bool
    last_seen: float


def kept_owners(connection: sqlite3.Connection) -> list[KeptOwner]:
    """Return all runs and their owners, the one that was seen longest ago first."""
    rows = connection.execute(
        "SELECT run, coalesce(owner, ''), coalesce(pinned, 0), CAST(last_seen AS REAL)"
        " FROM runs LEFT JOIN details USING (run) ORDER BY 4, 1"
    )
    return [KeptOwner(run, owner, bool(pinned), seen) for run, owner, pinned, seen in rows]


def delete_run(connection: sqlite3.Connection, run: str) -> None:
    """Delete all that is kept of a run, inside a transaction of the caller."""
    for table in TABLES:
        connection.execute(f"DELETE FROM {table} WHERE run = ?", (run,))  # noqa: S608 our own names


def merge_long_series(connection: sqlite3.Connection, retention: Retention) -> None:
    """Thin each stream and each gold source that has too many steps, in a transaction."""
    for run, model, split, _ in connection.execute(
        "SELECT run, model, split, count(*) AS steps FROM windows"
        " GROUP BY run, model, split HAVING steps > ?",
        (retention.steps,),
    ).fetchall():
        _merge_older_half(connection, (run, model, split))
    for run, source, _ in connection.execute(
        "SELECT run, source, count(*) AS points FROM gold GROUP BY run, source HAVING points > ?",
        (retention.steps,),
    ).fetchall():
        _drop_older_points(connection, run, source)


def free_space(connection: sqlite3.Connection, retention: Retention) -> None:
    """Bring the file within its bytes, in a transaction.

    The largest run of the owner that has most is thinned first, then the next. A run is forgotten
    only if it is the largest and cannot be thinned, and never one that is pinned.
    """
    if _bytes_in_use(connection) <= FULL_SHARE * retention.bytes:
        return
    limit = FREED_SHARE * retention.bytes
    sizes: dict[str, int] = dict(connection.execute(f"{SIZES} GROUP BY run").fetchall())
    kept = {run.run: run for run in kept_owners(connection)}
    owners = {run: kept[run].owner if run in kept else "" for run in sizes}
    for _ in range(MAX_ROUNDS):
        if not sizes or _bytes_in_use(connection) <= limit:
            return
        run = _largest(sizes, owners)
        if _thin(connection, run):
            sizes[run] = _size(connection, run)
            continue
        del sizes[run]
        if run not in kept or not kept[run].is_pinned:
            delete_run(connection, run)
            logger.warning("the run %r was forgotten: the file is full, and it is the largest", run)


def set_aside(connection: sqlite3.Connection, table: Table, row: int) -> None:
    """Move a row that cannot be read to where it is not read again; log its run and step.

    Args:
        connection: inside a transaction.
        table: the row's table.
        row: its id there.
    """
    columns = CONTENTS[table]
    connection.execute(
        f"INSERT INTO damaged SELECT {columns} FROM {table} WHERE rowid = ?",  # noqa: S608 our own
        (row,),
    )
    (place,) = connection.execute(
        f"SELECT run, step FROM {table} WHERE rowid = ?",  # noqa: S608 our own
        (row,),
    ).fetchall()
    connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))  # noqa: S608 our own
    logger.warning("run %r, step %r: what is stored cannot be read, and was set aside", *place)


def set_aside_damaged(connection: sqlite3.Connection, run: str) -> int:
    """Set aside all rows of a run that cannot be read; return their number."""
    damaged: list[tuple[Table, int]] = []
    for row, step, data in connection.execute(
        "SELECT rowid, step, summary FROM windows WHERE run = ?", (run,)
    ):
        if not isinstance(step, int) or _readable(data) is None:
            damaged.append(("windows", row))
    for row, step, text in connection.execute(
        "SELECT rowid, step, point FROM gold WHERE run = ?", (run,)
    ):
        try:
            gold_from_json(text)
            is_damaged = not isinstance(step, int)
        except DamagedRowError:
            is_damaged = True
        if is_damaged:
            damaged.append(("gold", row))
    for table, row in damaged:
        set_aside(connection, table, row)
    return len(damaged)


def _readable(data: bytes) -> Summary | None:
    try:
        return unpack_summary(data)
    except DamagedRowError:
        return None


def _largest(sizes: dict[str, int], owners: dict[str, str]) -> str:
    """Return the largest run of the owner whose runs are largest together."""
    totals = dict.fromkeys(owners.values(), 0)
    for run, size in sizes.items():
        totals[owners[run]] += size
    owner = max(totals, key=totals.__getitem__)
    return max((run for run in sizes if owners[run] == owner), key=sizes.__getitem__)


def _size(connection: sqlite3.Connection, run: str) -> int:
    """Return the bytes of a run, as nearly as free space can be shared out by."""
    (row,) = connection.execute(f"{SIZES} WHERE run = ?", (run,)).fetchall()
    return int(row[1] or 0)


def _thin(connection: sqlite3.Connection, run: str) -> bool:
    """Make a run smaller: by the rows that were set aside, else in its longest series.

    Returns:
        False where nothing can be left out without a series' beginning and end.
    """
    if connection.execute("DELETE FROM damaged WHERE run = ?", (run,)).rowcount:
        return True
    (stream,) = connection.execute(
        "SELECT run, model, split, count(*) AS steps FROM windows WHERE run = ?"
        " GROUP BY model, split ORDER BY steps DESC LIMIT 1",
        (run,),
    ).fetchall() or ((run, "", "", 0),)
    (source,) = connection.execute(
        "SELECT source, count(*) AS points FROM gold WHERE run = ?"
        " GROUP BY source ORDER BY points DESC LIMIT 1",
        (run,),
    ).fetchall() or (("", 0),)
    if max(stream[3], source[1]) < MIN_STEPS:
        return False
    if stream[3] >= source[1]:
        _merge_older_half(connection, (run, stream[1], stream[2]))
    else:
        _drop_older_points(connection, run, source[0])
    return True


def _drop_older_points(connection: sqlite3.Connection, run: str, source: str) -> None:
    """Delete every second measurement of the older half; the first stays, to compare with."""
    rows = connection.execute(
        "SELECT rowid FROM gold WHERE run = ? AND source = ? ORDER BY step", (run, source)
    ).fetchall()
    older = rows[: max(2, len(rows) // 2)]
    connection.executemany("DELETE FROM gold WHERE rowid = ?", older[1::2])
    connection.executemany(
        "INSERT OR REPLACE INTO gold SELECT run, source, step, point FROM gold WHERE rowid = ?",
        older[::2],
    )


def _merge_older_half(connection: sqlite3.Connection, stream: RunStream) -> None:
    """Merge pairs of adjacent steps in the older half, each into its later step."""
    rows = connection.execute(
        "SELECT rowid FROM windows WHERE (run, model, split) = (?, ?, ?) ORDER BY step", stream
    ).fetchall()
    older = [row for (row,) in rows[: len(rows) // 2 // 2 * 2]]
    for index in range(0, len(older), 2):
        _merge_rows(connection, older[index], older[index + 1])


def _merge_rows(connection: sqlite3.Connection, row: int, later: int) -> None:
    pair = [(known, _summary_of(connection, known)) for known in (row, later)]
    damaged = [known for known, summary in pair if summary is None]
    for known in damaged:
        set_aside(connection, "windows", known)
    if damaged:
        return
    whole = Summary()
    for _, summary in pair:
        whole.merge(summary or Summary())
    # A row that is replaced moves to the end, so that whole pages become free.
    connection.execute(
        "INSERT OR REPLACE INTO windows SELECT run, model, split, step, ? FROM windows"
        " WHERE rowid = ?",
        (pack_summary(whole), later),
    )
    connection.execute("DELETE FROM windows WHERE rowid = ?", (row,))


def _summary_of(connection: sqlite3.Connection, row: int) -> Summary | None:
    (data,) = connection.execute("SELECT summary FROM windows WHERE rowid = ?", (row,)).fetchone()
    return _readable(data)


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
