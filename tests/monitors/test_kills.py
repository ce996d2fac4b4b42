"""A recording process that is killed at any moment: what it had committed is in the file."""

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

from assay_monitors.changes import Changes
from assay_monitors.history import RunHistory, Stream
from assay_monitors.observations import Observation, Window
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore
from assay_monitors.summaries import summarise

from .recording import ITEMS

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("recording.py")
MODELS = ROOT / "models"
STREAM = Stream("code@1", "train")


@contextmanager
def recording(path: Path, *fatal: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(PROGRAM), str(path), *fatal]
    environment = {**os.environ, "PYTHONPATH": str(MODELS)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def recorded_batches(process: subprocess.Popen[str]) -> Iterator[tuple[int, float]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("\n"):
            number, when = line.split()
            yield int(number), float(when)


def stored_items(path: Path) -> dict[str, int]:
    """Return the observations by run, and check that the file is intact."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    history = RunHistory(path)
    return {
        run: sum(point.summary.items for point in history.series(run, STREAM))
        for run, *_ in history.runs()
    }


def highest_score(path: Path, run: str) -> float:
    return max(point.summary.score.high for point in RunHistory(path).series(run, STREAM))


def test_a_kill_loses_at_most_one_second_and_no_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    taken: list[tuple[int, float]] = []
    with recording(path) as process:
        for batch in recorded_batches(process):
            taken.append(batch)
            if batch[1] - taken[0][1] > 1.6:
                break
        killed = time.monotonic()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    stored = stored_items(path)
    safe: dict[str, int] = {}
    for number, when in taken:
        if when <= killed - 1.0:
            run = f"run-{number // 100}"
            safe[run] = safe.get(run, 0) + ITEMS
    assert len(safe) >= 1
    assert {run: stored.get(run, 0) >= items for run, items in safe.items()} == dict.fromkeys(
        safe, True
    )


@pytest.mark.parametrize(
    ("statement", "times"),
    [
        ("BEGIN IMMEDIATE", 3),
        ("INSERT INTO runs", 2),
        ("INSERT INTO windows", 1),
        ("INSERT INTO windows", 7),
        ("COMMIT", 2),
    ],
)
def test_a_kill_within_a_transaction_keeps_the_earlier_ones(
    tmp_path: Path, statement: str, times: int
) -> None:
    path = tmp_path / "runs.db"
    with recording(path, statement, str(times)) as process:
        taken = [number for number, _ in recorded_batches(process)]
        assert process.wait() == -signal.SIGKILL
    stored = stored_items(path)
    if statement == "COMMIT":
        assert "run-0" in stored
    assert sum(stored.values()) // ITEMS <= len(taken) + 1
    # The score of a batch is its number: the stored batches are the first ones, all complete.
    for run, items in stored.items():
        first = 100 * int(run.removeprefix("run-"))
        assert items % ITEMS == 0
        assert highest_score(path, run) == first + items // ITEMS - 1


def test_a_run_continues_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with recording(path, "COMMIT", "3") as process:
        assert process.wait() == -signal.SIGKILL
    before = stored_items(path)["run-0"]
    store = RunStore(path, Retention(), time.time)
    assert "run-0" in store.owners()
    more = summarise([Observation(1.0)] * 5)
    store.write(Changes({Window("run-0", *STREAM, 3): more}))
    store.close()
    assert stored_items(path)["run-0"] == before + 5
