"""Stores of runs for tests."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

from assay_monitors.changes import Changes, Outcome
from assay_monitors.database import Database
from assay_monitors.history import RunHistory, Stream
from assay_monitors.observations import Observation, Window
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore
from assay_monitors.summaries import summarise

CODE = Stream("code@1", "train")


class TickingClock:
    """A clock that is a second later at each call."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def open_store(path: Path | Database, **bounds: Any) -> RunStore:
    return RunStore(path, Retention(**bounds), TickingClock())


def changes_of(run_id: str, step: int, items: int = 1, stream: Stream = CODE) -> Changes:
    return Changes({Window(run_id, *stream, step): summarise([Observation(0.5)] * items)})


def new_run(name: str, owner: str) -> Changes:
    changes = changes_of(name, 1)
    changes.owners[name] = owner
    return changes


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Disk(RunStore):
    """A store whose disk can be full, and which counts the attempts to write."""

    is_full = False
    attempts = 0

    def __init__(self, path: Path | Database) -> None:
        super().__init__(path, Retention(), lambda: 0.0)
        self.written = threading.Event()

    def write(self, changes: Changes) -> Outcome:
        self.attempts += 1
        if self.is_full:
            raise sqlite3.OperationalError("database or disk is full")
        outcome = super().write(changes)
        self.written.set()
        return outcome


def window(run: str = "r", step: int = 0) -> Window:
    return Window(run, *CODE, step)


def items(number: int) -> list[Observation]:
    return [Observation(0.5)] * number


def stored_items(history: RunHistory, run: str = "r") -> int:
    return sum(point.summary.items for point in history.series(run, CODE))
