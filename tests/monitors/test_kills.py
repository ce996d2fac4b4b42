"""A process that records is killed, whatever it is doing: what it had committed is there."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.paths import ROOT

from assay_monitors.history import RunHistory, Stream
from assay_monitors.observations import Observation, Window
from assay_monitors.retention import Retention
from assay_monitors.store import Changes, RunStore
from assay_monitors.summaries import summarise

from .recording import ITEMS

PROGRAM = Path(__file__).with_name("recording.py")
ROOM = ROOT / "models"
STREAM = Stream("code@1", "train")


@contextmanager
def recording(path: Path, *fate: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(PROGRAM), str(path), *fate]
    environment = {**os.environ, "PYTHONPATH": str(ROOM)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> Iterator[tuple[int, float]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("\n"):
            number, when = line.split()
            yield int(number), float(when)


def found(path: Path) -> dict[str, int]:
    """How many observations of each run are there, of a file that is whole."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    history = RunHistory(path)
    return {
        run: sum(point.summary.items for point in history.series(run, STREAM))
        for run, _, _ in history.runs()
    }


def highest(path: Path, run: str) -> float:
    return max(point.summary.score.high for point in RunHistory(path).series(run, STREAM))


def test_a_kill_costs_no_more_than_a_second_and_no_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    taken: list[tuple[int, float]] = []
    with recording(path) as process:
        for batch in told(process):
            taken.append(batch)
            if batch[1] - taken[0][1] > 1.6:
                break
        killed = time.monotonic()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    known = found(path)
    safe: dict[str, int] = {}
    for number, when in taken:
        if when <= killed - 1.0:
            run = f"run-{number // 100}"
            safe[run] = safe.get(run, 0) + ITEMS
    assert len(safe) >= 1
    assert {run: known.get(run, 0) >= items for run, items in safe.items()} == dict.fromkeys(
        safe, True
    )


@pytest.mark.parametrize(
    ("statement", "times"),
    [
        ("BEGIN IMMEDIATE", 3),
        ("INSERT INTO runs", 2),
        ("INSERT OR REPLACE INTO windows", 1),
        ("INSERT OR REPLACE INTO windows", 7),
        ("COMMIT", 2),
    ],
)
def test_a_kill_amid_a_transaction_leaves_the_ones_before(
    tmp_path: Path, statement: str, times: int
) -> None:
    path = tmp_path / "runs.db"
    with recording(path, statement, str(times)) as process:
        taken = [number for number, _ in told(process)]
        assert process.wait() == -signal.SIGKILL
    known = found(path)
    if statement == "COMMIT":
        assert "run-0" in known
    assert sum(known.values()) // ITEMS <= len(taken) + 1
    # Each batch has its number for a score: what is there are the first ones, and those entirely.
    for run, items in known.items():
        first = 100 * int(run.removeprefix("run-"))
        assert items % ITEMS == 0
        assert highest(path, run) == first + items // ITEMS - 1


def test_after_a_kill_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with recording(path, "COMMIT", "3") as process:
        assert process.wait() == -signal.SIGKILL
    before = found(path)["run-0"]
    store = RunStore(path, Retention(), time.time)
    assert "run-0" in store.runs()
    more = summarise([Observation(1.0)] * 5)
    store.write(Changes({Window("run-0", *STREAM, 3): more}))
    store.close()
    assert found(path)["run-0"] == before + 5
