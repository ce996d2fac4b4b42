"""RunHistory: reads the database of runs, also while other processes write it."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from assay_monitors.codec import DamagedRowError, gold_from_json, unpack_summary
from assay_monitors.database import Database, IsOver, Reader, ReadTimeoutError
from assay_monitors.gold import GoldPoint
from assay_monitors.run_file import RunFile
from assay_monitors.summaries import Point, Summary, bound_names

NO_LIMIT = 2**63 - 1

ExpectedRuns = Callable[[], Mapping[str, float]]
"""Returns the runs that were named and may not be stored yet, and when, in seconds since the epoch.
"""


class Run(NamedTuple):
    """A run, the times of its first and latest data in seconds since the epoch, and its note.

    `owner` is the name of the key that made it, `pinned` whether it is never forgotten, and
    `is_expected` whether it was named and nothing of it is stored yet.
    """

    run: str
    first_seen: float
    last_seen: float
    note: str | None = None
    owner: str = ""
    pinned: bool = False
    is_expected: bool = False


class StepOrigin(NamedTuple):
    """The step that a run's trainer named last, if any, and the time of the run's first data.

    `named_at` is the time at which the step was named, in seconds since the epoch; None where it
    is unknown.
    """

    last_step: int | None
    first_seen: float
    named_at: float | None = None


class Stream(NamedTuple):
    """A model and a split, which have a series of their own within a run."""

    model: str
    split: str


class Update(NamedTuple):
    """The time of a run's latest data, in seconds since the epoch, and its latest step.

    The step is None where the run has gold measurements only, no scores and no telemetry.
    """

    last_seen: float
    step: int | None


# The trainer's telemetry is stored under the empty model and split.
TRAINER_STREAM = Stream("", "")


RUNS = """
SELECT run, CAST(first_seen AS DOUBLE PRECISION), CAST(last_seen AS DOUBLE PRECISION), note,
    coalesce(owner, ''), coalesce(pinned, 0) FROM runs LEFT JOIN details USING (run)
"""


class RunHistory:
    """Reads the database that a `RunStore` writes, each time as it was last committed.

    What cannot be read is left out and counted.

    Args:
        place: the database, or the path of an SQLite file.
        expected: the runs that are known though nothing of them is stored yet; they have no data.
        is_over: returns whether the time to read is over.

    Attributes:
        damaged: the number of rows that could not be read, by run; "" where that is unknown.
    """

    def __init__(
        self,
        place: Path | Database,
        expected: ExpectedRuns = dict,
        is_over: IsOver = lambda: False,
    ) -> None:
        self._database: Database = RunFile(place) if isinstance(place, Path) else place
        self._expected = expected
        self._is_over = is_over
        self.damaged: dict[str, int] = {}

    @property
    def is_shared(self) -> bool:
        """Whether it is a database that other servers write."""
        return not isinstance(self._database, RunFile)

    def until(self, is_over: IsOver) -> "RunHistory":
        """Return a reader of the same database for one use.

        It raises `ReadTimeoutError` soon after `is_over` returns true.
        """
        return RunHistory(self._database, self._expected, is_over)

    def runs(self) -> list[Run]:
        """Return all runs that are kept, the most recently recorded first."""
        expected = self._expected()
        with self._connect() as connection:
            rows = self._rows(connection, f"{RUNS} ORDER BY 3 DESC, 1")
            runs = [_run(row) for row in rows]
        stored = {run.run for run in runs}
        new = [_expected_run(run, seen) for run, seen in expected.items() if run not in stored]
        return sorted(new, key=lambda run: -run.last_seen) + runs

    def find(self, run: str) -> Run | None:
        """Return a run; None if it is unknown."""
        expected = self._expected()
        with self._connect() as connection:
            row = next(self._rows(connection, f"{RUNS} WHERE run = ?", run), None)
        if row is None:
            return _expected_run(run, expected[run]) if run in expected else None
        return _run(row)

    def damaged_rows(self, run: str) -> int:
        """Return the number of a run's rows that were set aside, or could not be read now."""
        with self._connect() as connection:
            (count,) = next(
                self._rows(connection, "SELECT count(*) FROM damaged WHERE run = ?", run), (0,)
            )
        return int(count) + self.damaged.get(run, 0)

    def step_origin(self, run: str) -> StepOrigin | None:
        """Return from where a run's items without a step are filed; None if it is not stored."""
        with self._connect() as connection:
            row = connection.execute(
                "SELECT last_step, CAST(first_seen AS DOUBLE PRECISION), step_named_at"
                " FROM runs LEFT JOIN details USING (run) WHERE run = ?",
                (run,),
            ).fetchone()
        return None if row is None else StepOrigin(*row)

    def updates(self, runs: Iterable[str]) -> dict[str, Update]:
        """Return the latest update of each of these runs that is kept; no summary is read."""
        wanted, expected = list(runs), self._expected()
        with self._connect() as connection:
            new = {run: Update(expected[run], None) for run in wanted if run in expected}
            latest = (
                "SELECT CAST(last_seen AS DOUBLE PRECISION), (SELECT max(step) FROM windows"  # noqa: S608
                f" WHERE windows.run = runs.run AND {connection.dialect.is_whole_step})"
                " FROM runs WHERE run = ?"
            )
            return new | {
                run: Update(*row) for run in wanted for row in self._rows(connection, latest, run)
            }

    def streams(self, run: str) -> list[Stream]:
        """Return the models and splits that the run was scored with."""
        with self._connect() as connection:
            rows = self._rows(
                connection,
                "SELECT DISTINCT model, split FROM windows WHERE run = ? ORDER BY model, split",
                run,
            )
            return [stream for row in rows if (stream := Stream(*row)) != TRAINER_STREAM]

    def sources(self, run: str) -> list[str]:
        """Return the gold sources that the run was measured against."""
        with self._connect() as connection:
            rows = self._rows(
                connection, "SELECT DISTINCT source FROM gold WHERE run = ? ORDER BY source", run
            )
            return [source for (source,) in rows]

    def series(
        self, run: str, stream: Stream, *, since: int = 0, limit: int | None = None
    ) -> list[Point]:
        """Return the steps of a stream, rising, each with the trainer's telemetry of the step.

        Args:
            run: its run.
            stream: `TRAINER_STREAM` is the telemetry alone.
            since: the first step to return.
            limit: steps to return; None for all.
        """
        points: dict[int, Summary] = {}
        for source in {stream, TRAINER_STREAM}:
            for step, summary in self._steps(run, source, since, limit):
                if step in points:
                    points[step].merge(summary)
                else:
                    points[step] = summary
        series = [Point(step, points[step]) for step in islice(sorted(points), limit)]
        bound_names(series)
        return series

    def gold(self, run: str) -> dict[str, list[GoldPoint]]:
        """Return the measurements by gold source, by rising step."""
        points: dict[str, list[GoldPoint]] = {}
        with self._connect() as connection:
            for source, text in self._rows(
                connection,
                "SELECT source, point FROM gold WHERE run = ? ORDER BY source, step",
                run,
            ):
                self._check_time()
                try:
                    points.setdefault(source, []).append(gold_from_json(text))
                except DamagedRowError:
                    self._count_damaged(run)
        return {source: known for source, known in points.items() if known}

    def _steps(
        self, run: str, stream: Stream, since: int, limit: int | None
    ) -> Iterator[tuple[int, Summary]]:
        with self._connect() as connection:
            rows = self._rows(
                connection,
                "SELECT step, summary FROM windows WHERE (run, model, split) = (?, ?, ?)"
                " AND step >= ? ORDER BY step LIMIT ?",
                *(run, *stream, since, NO_LIMIT if limit is None else limit),
            )
            for step, data in rows:
                self._check_time()
                try:
                    if not isinstance(step, int):
                        raise DamagedRowError("the step is no number")
                    summary = unpack_summary(data)
                except DamagedRowError:
                    self._count_damaged(run)
                else:
                    yield step, summary

    def _rows(
        self, connection: Reader, query: str, run: str | None = None, *more: object
    ) -> Iterator[Any]:
        """Yield the rows of a query; where a page of the file is damaged, those before it."""
        cursor = connection.execute(query, () if run is None else (run, *more))
        try:
            while (row := cursor.fetchone()) is not None:
                yield row
        except sqlite3.DatabaseError as error:
            if _code_of(error) & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            self._count_damaged(run or "")

    def _count_damaged(self, run: str) -> None:
        self.damaged[run] = self.damaged.get(run, 0) + 1

    def _check_time(self) -> None:
        if self._is_over():
            raise ReadTimeoutError

    @contextmanager
    def _connect(self) -> Iterator[Reader]:
        self._check_time()
        with self._database.reading(self._is_over) as connection:
            yield connection


def _expected_run(run: str, seen: float) -> Run:
    return Run(run, seen, seen, is_expected=True)


def _run(row: tuple[str, float, float, str | None, str, int]) -> Run:
    run, first_seen, last_seen, note, owner, pinned = row
    return Run(run, first_seen, last_seen, note, owner, bool(pinned))


def _code_of(error: sqlite3.Error) -> int:
    """Return SQLite's code of an error; 0 for one that the Python module has raised."""
    return getattr(error, "sqlite_errorcode", 0)
