"""Stores of runs for tests."""

from pathlib import Path
from typing import Any

from assay_monitors.history import Stream
from assay_monitors.observations import Observation, Window
from assay_monitors.retention import Retention
from assay_monitors.store import Changes, RunStore
from assay_monitors.summaries import summarise

CODE = Stream("code@1", "train")


class TickingClock:
    """A clock that is a second later at each call."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def open_store(path: Path, **bounds: Any) -> RunStore:
    return RunStore(path, Retention(**bounds), TickingClock())


def changes_of(run_id: str, step: int, items: int = 1, stream: Stream = CODE) -> Changes:
    return Changes({Window(run_id, *stream, step): summarise([Observation(0.5)] * items)})


def new_run(name: str, owner: str) -> Changes:
    changes = changes_of(name, 1)
    changes.owners[name] = owner
    return changes
