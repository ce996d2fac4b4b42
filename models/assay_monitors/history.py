"""RunHistory: reads the file of runs, also while other processes write it."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from assay_monitors.codec import gold_from_json, unpack_summary
from assay_monitors.gold import GoldPoint
from assay_monitors.summaries import Point, Summary

BUSY_SECONDS = 5.0


ExpectedRuns = Callable[[], Mapping[str, float]]
"""Returns the runs that were named and may not be stored yet, and when, in seconds since the epoch.
"""


class Run(NamedTuple):
    """A run, the times of its first and latest data in seconds since the epoch, and its note."""

    run: str
    first_seen: float
    last_seen: float
    note: str | None = None


class StepOrigin(NamedTuple):
    """The step that a run's trainer named last, if any, and the time of the run's first data."""

    last_step: int | None
    first_seen: float


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


class RunHistory:
    """Reads the file that a `RunStore` writes, each time as it was last committed.

    Args:
        path: of the file.
        expected: the runs that are known though nothing of them is stored yet; they have no data.
    """

    def __init__(self, path: Path, expected: ExpectedRuns = dict) -> None:
        self._address = f"{path.absolute().as_uri()}?mode=ro"
        self._expected = expected

    def runs(self) -> list[Run]:
        """Return all runs that are kept, the most recently recorded first."""
        expected = self._expected()
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT runs.*, note FROM runs LEFT JOIN details USING (run)"
                " ORDER BY last_seen DESC, run"
            )
            runs = [Run(*row) for row in rows]
        stored = {run.run for run in runs}
        new = [Run(run, seen, seen) for run, seen in expected.items() if run not in stored]
        return sorted(new, key=lambda run: -run.last_seen) + runs

    def step_origin(self, run: str) -> StepOrigin | None:
        """Return from where a run's items without a step are filed; None if it is not stored."""
        with self._connect() as connection:
            row = connection.execute(
                "SELECT last_step, first_seen FROM runs LEFT JOIN details USING (run)"
                " WHERE run = ?",
                (run,),
            ).fetchone()
        return None if row is None else StepOrigin(*row)

    def updates(self, runs: Iterable[str]) -> dict[str, Update]:
        """Return the latest update of each of these runs that is kept; no summary is read."""
        wanted, expected = list(runs), self._expected()
        with self._connect() as connection:
            new = {run: Update(expected[run], None) for run in wanted if run in expected}
            return new | {
                run: Update(*row)
                for run in wanted
                for row in connection.execute(
                    "SELECT last_seen, (SELECT max(step) FROM windows WHERE windows.run = runs.run)"
                    " FROM runs WHERE run = ?",
                    (run,),
                )
            }

    def streams(self, run: str) -> list[Stream]:
        """Return the models and splits that the run was scored with."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT DISTINCT model, split FROM windows WHERE run = ? ORDER BY model, split",
                (run,),
            )
            return [stream for row in rows if (stream := Stream(*row)) != TRAINER_STREAM]

    def series(self, run: str, stream: Stream) -> list[Point]:
        """Return the steps of a stream, rising, each with the trainer's telemetry of the step.

        `TRAINER_STREAM` is the telemetry alone.
        """
        points: dict[int, Summary] = {}
        for source in {stream, TRAINER_STREAM}:
            for step, summary in self._steps(run, source):
                if step in points:
                    points[step].merge(summary)
                else:
                    points[step] = summary
        return [Point(step, points[step]) for step in sorted(points)]

    def gold(self, run: str) -> dict[str, list[GoldPoint]]:
        """Return the measurements by gold source, by rising step."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT source, point FROM gold WHERE run = ? ORDER BY source, step", (run,)
            ).fetchall()
        points: dict[str, list[GoldPoint]] = {}
        for source, text in rows:
            points.setdefault(source, []).append(gold_from_json(text))
        return points

    def _steps(self, run: str, stream: Stream) -> Iterator[tuple[int, Summary]]:
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT step, summary FROM windows WHERE (run, model, split) = (?, ?, ?)",
                (run, *stream),
            ).fetchall()
        return ((step, unpack_summary(summary)) for step, summary in rows)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._address, uri=True, timeout=BUSY_SECONDS)
        try:
            yield connection
        finally:
            connection.close()
