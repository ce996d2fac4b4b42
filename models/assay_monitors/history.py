"""RunHistory: reads the file of runs, also while other processes write it."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from assay_monitors.codec import gold_from_json, unpack_summary
from assay_monitors.gold import GoldPoint
from assay_monitors.summaries import Point, Summary

BUSY_SECONDS = 5.0


class Run(NamedTuple):
    """A run, and the times of its first and latest data, in seconds since the epoch."""

    run: str
    first_seen: float
    last_seen: float


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
    """Reads the file that a `RunStore` writes, each time as it was last committed."""

    def __init__(self, path: Path) -> None:
        self._address = f"{path.absolute().as_uri()}?mode=ro"

    def runs(self) -> list[Run]:
        """Return all runs that are kept, the most recently recorded first."""
        with self._connect() as connection:
            rows = connection.execute("SELECT * FROM runs ORDER BY last_seen DESC, run")
            return [Run(*row) for row in rows]

    def updates(self, runs: Iterable[str]) -> dict[str, Update]:
        """Return the latest update of each of these runs that is kept; no summary is read."""
        with self._connect() as connection:
            return {
                run: Update(*row)
                for run in runs
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
