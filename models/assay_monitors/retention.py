"""Retention: the limits of the file of runs, and the deletions and merges to stay within them."""

import sqlite3
from dataclasses import dataclass

from assay_monitors.codec import pack_summary, unpack_summary

TABLES = ("windows", "gold", "details", "runs")
"""The tables of the file; each has the run's name in its column `run`."""

RunStream = tuple[str, str, str]
"""The run, the model and the split of a stream."""


@dataclass(frozen=True, slots=True)
class Retention:
    """The limits of the file: runs, steps of one stream, and bytes in use.

    The most recently recorded runs are kept. If a stream has too many steps, pairs of adjacent
    steps in its older half are merged. So no observation is lost, and the stream keeps its
    beginning, which rules compare with.
    """

    runs: int = 200
    steps: int = 2_000
    bytes: int = 256 * 2**20


def retain(connection: sqlite3.Connection, retention: Retention) -> None:
    """Bring the file within its limits, inside a transaction of the caller."""
    for (run,) in connection.execute(
        "SELECT run FROM runs ORDER BY last_seen DESC, run LIMIT -1 OFFSET ?", (retention.runs,)
    ).fetchall():
        delete_run(connection, run)
    for *stream, _ in connection.execute(
        "SELECT run, model, split, count(*) AS steps FROM windows"
        " GROUP BY run, model, split HAVING steps > ?",
        (retention.steps,),
    ).fetchall():
        _merge_older_half(connection, (stream[0], stream[1], stream[2]))
    while _bytes_in_use(connection) > retention.bytes and _free_space(connection):
        pass


def delete_run(connection: sqlite3.Connection, run: str) -> None:
    """Delete all that is kept of a run, inside a transaction of the caller."""
    for table in TABLES:
        connection.execute(f"DELETE FROM {table} WHERE run = ?", (run,))  # noqa: S608 our own names


def _free_space(connection: sqlite3.Connection) -> bool:
    """Delete the least recently recorded run, or merge steps of the only run.

    Returns:
        False where neither is possible.
    """
    runs = connection.execute("SELECT run FROM runs ORDER BY last_seen, run LIMIT 2").fetchall()
    if len(runs) > 1:
        delete_run(connection, runs[0][0])
        return True
    streams = connection.execute("SELECT DISTINCT run, model, split FROM windows").fetchall()
    merged = [_merge_older_half(connection, stream) for stream in streams]
    return any(merged)


def _merge_older_half(connection: sqlite3.Connection, stream: RunStream) -> bool:
    """Merge pairs of adjacent steps in the older half, each into its later step."""
    steps = connection.execute(
        "SELECT step FROM windows WHERE (run, model, split) = (?, ?, ?) ORDER BY step", stream
    ).fetchall()
    older = [step for (step,) in steps[: len(steps) // 2 // 2 * 2]]
    for index in range(0, len(older), 2):
        _merge_steps(connection, stream, older[index], older[index + 1])
    return bool(older)


def _merge_steps(connection: sqlite3.Connection, stream: RunStream, step: int, later: int) -> None:
    (first,), (second,) = connection.execute(
        "SELECT summary FROM windows WHERE (run, model, split) = (?, ?, ?) AND step IN (?, ?)",
        (*stream, step, later),
    ).fetchall()
    summary = unpack_summary(first)
    summary.merge(unpack_summary(second))
    connection.execute(
        "INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?)",
        (*stream, later, pack_summary(summary)),
    )
    connection.execute(
        "DELETE FROM windows WHERE (run, model, split, step) = (?, ?, ?, ?)", (*stream, step)
    )


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
