"""Retention: deletions and merges that keep the database of runs within its limits."""

import logging
from dataclasses import dataclass
from typing import Literal, NamedTuple

from assay_monitors.codec import DamagedRowError, gold_from_json, pack_summary, unpack_summary
from assay_monitors.database import Connection
from assay_monitors.summaries import Summary

logger = logging.getLogger(__name__)

TABLES = ("windows", "gold", "details", "damaged", "runs")
"""The tables of the database; each has the run's name in its column `run`."""
RunStream = tuple[str, str, str]
"""The run, the model and the split of a stream."""
Table = Literal["windows", "gold"]
"""A table of stored statistics."""
RowId = object
"""The place of a row in its table, within a transaction."""
CONTENTS: dict[Table, str] = {
    "windows": "run, 'windows', model, split, step, summary",
    "gold": "run, 'gold', source, '', step, {gold_content}",
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
SELECT run, CAST(sum(size) AS BIGINT) FROM (
    SELECT run, 64 + length(model) + length(split) + length(summary) AS size FROM windows
    UNION ALL SELECT run, 64 + length(source) + length(point) FROM gold
    UNION ALL SELECT run, 64 + length(content) FROM damaged
    UNION ALL SELECT run, 64 + coalesce(length(note), 0) FROM details) AS sizes
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """The limits of the database.

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


def kept_owners(connection: Connection) -> list[KeptOwner]:
    """Return all runs and their owners, the one that was seen longest ago first."""
    rows = connection.execute(
        "SELECT run, coalesce(owner, ''), coalesce(pinned, 0), CAST(last_seen AS DOUBLE PRECISION)"
        " FROM runs LEFT JOIN details USING (run) ORDER BY 4, 1"
    )
    return [KeptOwner(run, owner, bool(pinned), seen) for run, owner, pinned, seen in rows]


def delete_run(connection: Connection, run: str) -> None:
    """Delete all that is kept of a run, inside a transaction of the caller."""
    for table in TABLES:
        connection.execute(f"DELETE FROM {table} WHERE run = ?", (run,))  # noqa: S608 our own names


def merge_long_series(connection: Connection, retention: Retention) -> None:
    """Thin each stream and each gold source that has too many steps, in a transaction."""
    for run, model, split, _ in connection.execute(
        "SELECT run, model, split, count(*) FROM windows"
        " GROUP BY run, model, split HAVING count(*) > ?",
        (retention.steps,),
    ).fetchall():
        _merge_older_half(connection, (run, model, split))
    for run, source, _ in connection.execute(
        "SELECT run, source, count(*) FROM gold GROUP BY run, source HAVING count(*) > ?",
        (retention.steps,),
    ).fetchall():
        _drop_older_points(connection, run, source)


def free_space(connection: Connection, retention: Retention) -> None:
    """Bring the database within its bytes, in a transaction.

    The largest run of the owner that has most is thinned first, then the next. A run is forgotten
    only if it is the largest and cannot be thinned, and never one that is pinned.
    """
    if connection.bytes_in_use() <= FULL_SHARE * retention.bytes:
        return
    limit = FREED_SHARE * retention.bytes
    sizes: dict[str, int] = dict(connection.execute(f"{SIZES} GROUP BY run").fetchall())
    kept = {run.run: run for run in kept_owners(connection)}
    owners = {run: kept[run].owner if run in kept else "" for run in sizes}
    for _ in range(MAX_ROUNDS):
        if not sizes or connection.bytes_in_use() <= limit:
            return
        run = _largest(sizes, owners)
        if _thin(connection, run):
            sizes[run] = _size(connection, run)
            continue
        del sizes[run]
        if run not in kept or not kept[run].is_pinned:
            delete_run(connection, run)
            logger.warning("the run %r was forgotten: no space is left, and it is the largest", run)


def set_aside(connection: Connection, table: Table, row: RowId) -> None:
    """Move a row that cannot be read to where it is not read again; log its run and step.

    Args:
        connection: inside a transaction.
        table: the row's table.
        row: its id there.
    """
    dialect = connection.dialect
    columns = CONTENTS[table].format(gold_content=dialect.gold_content)
    here = f"FROM {table} WHERE {dialect.row} = ?"
    connection.execute(f"INSERT INTO damaged SELECT {columns} {here}", (row,))
    (place,) = connection.execute(f"SELECT run, step {here}", (row,)).fetchall()
    connection.execute(f"DELETE {here}", (row,))
    logger.warning("run %r, step %r: what is stored cannot be read, and was set aside", *place)


def set_aside_damaged(connection: Connection, run: str) -> int:
    """Set aside all rows of a run that cannot be read; return their number."""
    damaged: list[tuple[Table, RowId]] = []
    row_id = connection.dialect.row
    for row, step, data in connection.execute(
        f"SELECT {row_id}, step, summary FROM windows WHERE run = ?",  # noqa: S608 our own names
        (run,),
    ):
        if not isinstance(step, int) or _readable(data) is None:
            damaged.append(("windows", row))
    for row, step, text in connection.execute(
        f"SELECT {row_id}, step, point FROM gold WHERE run = ?",  # noqa: S608 our own names
        (run,),
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


def _size(connection: Connection, run: str) -> int:
    """Return the bytes of a run, as nearly as free space can be shared out by."""
    rows = connection.execute(f"{SIZES} WHERE run = ? GROUP BY run", (run,)).fetchall()
    return sum([size for _, size in rows])


def _thin(connection: Connection, run: str) -> bool:
    """Make a run smaller: by the rows that were set aside, else in its longest series.

    Returns:
        False where nothing can be left out without a series' beginning and end.
    """
    if connection.execute("DELETE FROM damaged WHERE run = ?", (run,)).rowcount:
        return True
    (stream,) = connection.execute(
        "SELECT run, model, split, count(*) AS steps FROM windows WHERE run = ?"
        " GROUP BY run, model, split ORDER BY steps DESC LIMIT 1",
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


def _drop_older_points(connection: Connection, run: str, source: str) -> None:
    """Delete every second measurement of the older half; the first stays, to compare with."""
    rows = connection.execute(
        f"SELECT {connection.dialect.row}, run, source, step, point FROM gold"  # noqa: S608
        " WHERE run = ? AND source = ? ORDER BY step",
        (run, source),
    ).fetchall()
    older = rows[: max(2, len(rows) // 2)]
    for row, *_ in older:
        _delete(connection, "gold", row)
    # A row that is written anew moves to the end, so that whole pages become free.
    for _, *point in older[::2]:
        connection.execute("INSERT INTO gold VALUES (?, ?, ?, ?)", point)


def _merge_older_half(connection: Connection, stream: RunStream) -> None:
    """Merge pairs of adjacent steps in the older half, each into its later step."""
    rows = connection.execute(
        f"SELECT {connection.dialect.row}, step FROM windows"  # noqa: S608 our own names
        " WHERE (run, model, split) = (?, ?, ?) ORDER BY step",
        stream,
    ).fetchall()
    older = rows[: len(rows) // 2 // 2 * 2]
    for index in range(0, len(older), 2):
        (row, _), (later, step) = older[index : index + 2]
        _merge_rows(connection, (*stream, step), row, later)


def _merge_rows(
    connection: Connection, window: tuple[str, str, str, object], row: RowId, later: RowId
) -> None:
    pair = [(known, _summary_of(connection, known)) for known in (row, later)]
    damaged = [known for known, summary in pair if summary is None]
    for known in damaged:
        set_aside(connection, "windows", known)
    if damaged:
        return
    whole = Summary()
    for known, summary in pair:
        whole.merge(summary or Summary())
        _delete(connection, "windows", known)
    # A row that is written anew moves to the end, so that whole pages become free.
    connection.execute("INSERT INTO windows VALUES (?, ?, ?, ?, ?)", (*window, pack_summary(whole)))


def _delete(connection: Connection, table: Table, row: RowId) -> None:
    statement = f"DELETE FROM {table} WHERE {connection.dialect.row} = ?"  # noqa: S608 our own
    connection.execute(statement, (row,))


def _summary_of(connection: Connection, row: RowId) -> Summary | None:
    (data,) = connection.execute(
        f"SELECT summary FROM windows WHERE {connection.dialect.row} = ?",  # noqa: S608 our own
        (row,),
    ).fetchone()
    return _readable(data)
