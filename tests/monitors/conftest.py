"""A file of runs, its store, and a recorder whose clock and disk the test sets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from assay_monitors.history import RunHistory
from assay_monitors.recorder import Recorder
from assay_monitors.store import RunStore

from .stores import Clock, Disk, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def store(path: Path) -> Iterator[RunStore]:
    store = open_store(path)
    yield store
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "runs.db")


@pytest.fixture
def recorder(disk: Disk, clock: Clock) -> Iterator[Recorder]:
    recorder = Recorder(disk, clock, interval=0.25, capacity=100)
    yield recorder
    recorder.close()


@pytest.fixture
def history(disk: Disk, tmp_path: Path) -> RunHistory:
    return RunHistory(tmp_path / "runs.db")
