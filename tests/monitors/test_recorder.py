"""The recorder, turn by turn: when it commits, what it drops, how it takes a failing disk."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay_monitors.gold import GoldPoint
from assay_monitors.history import TRAINER, RunHistory, Stream
from assay_monitors.observations import Observation, Window
from assay_monitors.recorder import MAX_WINDOWS, Recorder
from assay_monitors.retention import Retention
from assay_monitors.store import Changes, RunStore

STREAM = Stream("code@1", "train")


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Disk(RunStore):
    """A store whose disk can be full, and which counts what was tried."""

    full = False
    tried = 0

    def write(self, changes: Changes) -> None:
        self.tried += 1
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super().write(changes)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "runs.db", Retention(), lambda: 0.0)


@pytest.fixture
def recorder(disk: Disk, clock: Clock) -> Iterator[Recorder]:
    recorder = Recorder(disk, clock, interval=0.25, capacity=100)
    yield recorder
    recorder.close()


@pytest.fixture
def history(disk: Disk, tmp_path: Path) -> RunHistory:
    return RunHistory(tmp_path / "runs.db")


def window(run: str = "r", step: int = 0) -> Window:
    return Window(run, *STREAM, step)


def items(number: int) -> list[Observation]:
    return [Observation(0.5)] * number


def kept(history: RunHistory, run: str = "r") -> int:
    return sum(point.summary.items for point in history.series(run, STREAM))


def test_a_new_run_is_written_at_once(recorder: Recorder, history: RunHistory) -> None:
    recorder.record(window(), items(2))
    assert recorder.turn() is None
    assert kept(history) == 2


def test_a_known_run_is_written_when_it_is_due(
    recorder: Recorder, history: RunHistory, clock: Clock, disk: Disk
) -> None:
    recorder.record(window(), items(1))
    recorder.turn()
    for step in range(3):
        recorder.record(window(step=step), items(1))
        assert recorder.turn() == 0.25 - step / 16
        clock.now += 1 / 16
    assert kept(history) == 1
    clock.now += 1 / 16
    assert recorder.turn() is None
    assert kept(history) == 4
    assert disk.tried == 2
    assert recorder.counts.written == 4


def test_what_was_written_before_a_restart_is_known(
    recorder: Recorder, disk: Disk, clock: Clock
) -> None:
    recorder.record(window(), items(1))
    recorder.turn()
    again = Recorder(disk, clock)
    again.record(window(), items(1))
    assert again.turn() == 0.25


def test_what_does_not_fit_is_dropped_and_counted(recorder: Recorder, history: RunHistory) -> None:
    assert recorder.record(window(), items(60))
    assert not recorder.record(window(), items(41))
    assert recorder.record(window(), items(40))
    assert recorder.counts.dropped == 41
    recorder.turn()
    assert recorder.record(window(), items(100))
    assert kept(history) == 100


def test_telemetry_and_gold_go_the_same_way(recorder: Recorder, history: RunHistory) -> None:
    assert recorder.record_telemetry("r", 3, {"kl": 0.5})
    assert recorder.record_gold("r", "tests", GoldPoint(3))
    recorder.turn()
    (point,) = history.series("r", TRAINER)
    assert point.summary.telemetry["kl"].mean == 0.5
    assert history.gold("r") == {"tests": [GoldPoint(3)]}


def test_a_full_disk_costs_nothing_once_there_is_room_again(
    recorder: Recorder, history: RunHistory, disk: Disk, clock: Clock
) -> None:
    disk.full = True
    recorder.record(window(), items(5))
    assert recorder.turn() == 0.25
    recorder.record(window("other"), items(5))
    recorder.turn()
    assert (disk.tried, recorder.counts.failed_commits) == (1, 1)
    disk.full = False
    clock.now += 0.25
    recorder.turn()
    assert (kept(history), kept(history, "other")) == (5, 5)
    assert recorder.counts.dropped == 0


def test_a_disk_that_stays_full_costs_bounded_room(
    recorder: Recorder, disk: Disk, clock: Clock
) -> None:
    disk.full = True
    for step in range(MAX_WINDOWS + 10):
        recorder.record(window(step=step), items(1))
        recorder.turn()
    assert recorder.counts.dropped == 10
    clock.now += 1
    recorder.turn()
    assert disk.tried == 2


def test_many_windows_are_written_before_they_are_due(
    recorder: Recorder, history: RunHistory
) -> None:
    recorder.record(window(), items(1))
    recorder.turn()
    for step in range(MAX_WINDOWS):
        recorder.record(window(step=step), items(1))
        recorder.turn()
    assert kept(history) == 1 + MAX_WINDOWS


def test_closing_writes_what_waits_and_takes_no_more(
    recorder: Recorder, history: RunHistory, disk: Disk
) -> None:
    recorder.record(window(), items(1))
    recorder.turn()
    for step in range(9):
        recorder.record(window(step=step), items(1))
    recorder.close()
    assert kept(history) == 10
    assert disk.tried == 2
    assert not recorder.record(window(), items(1))


def test_closing_on_a_full_disk_counts_what_is_lost(recorder: Recorder, disk: Disk) -> None:
    disk.full = True
    recorder.record(window(), items(7))
    for _ in range(2):
        recorder.close()
        assert recorder.counts.dropped == 7


def test_the_thread_writes_by_itself(disk: Disk, history: RunHistory) -> None:
    written = threading.Event()

    class Telling(Disk):
        def write(self, changes: Changes) -> None:
            super().write(changes)
            written.set()

    disk.__class__ = Telling
    recorder = Recorder(disk, lambda: 0.0)
    assert not recorder.alive
    recorder.start()
    assert recorder.alive
    recorder.record(window(), items(3))
    assert written.wait(30)
    assert kept(history) == 3
    recorder.record(window(), items(4))
    recorder.close()
    assert not recorder.alive
    assert kept(history) == 7


def test_threads_lose_nothing_between_them(disk: Disk, history: RunHistory) -> None:
    recorder = Recorder(disk, lambda: 0.0, capacity=10_000)
    recorder.start()

    def work(run: str) -> None:
        for step in range(50):
            recorder.record(window(run, step), items(2))

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()
    assert [kept(history, str(number)) for number in range(4)] == [100] * 4
    assert (recorder.counts.written, recorder.counts.dropped) == (400, 0)


class Bell(threading.Event):
    """Counts how often the writer is woken."""

    rung = 0

    def set(self) -> None:
        self.rung += 1
        super().set()


def test_the_writer_is_woken_once_for_what_one_commit_takes(
    recorder: Recorder, clock: Clock, history: RunHistory
) -> None:
    recorder.record(window(), items(1))
    recorder.turn()
    recorder._wake = bell = Bell()
    for _ in range(10):
        recorder.record(window(), items(1))
    assert (bell.rung, recorder.turn()) == (1, 0.25)
    for _ in range(5):
        recorder.record(window(), items(1))
    assert bell.rung == 1
    clock.now += 0.25
    assert recorder.turn() is None
    assert kept(history) == 16
    recorder.record(window(), items(1))
    assert bell.rung == 2


def test_a_new_run_and_a_queue_half_full_wake_it_too(recorder: Recorder) -> None:
    recorder.record(window(), items(1))
    recorder.turn()
    recorder.record(window(), items(1))
    recorder._wake = bell = Bell()
    recorder.record(window("new"), items(1))
    assert bell.rung == 1
    recorder.record(window(), items(48))
    assert bell.rung == 1
    recorder.record(window(), items(1))
    assert bell.rung == 2


def test_whoever_watches_is_told_of_which_runs_something_was_committed(
    disk: Disk, clock: Clock
) -> None:
    told: list[set[str]] = []
    recorder = Recorder(disk, clock, on_commit=told.append)
    recorder.record(window("a"), items(1))
    recorder.record_telemetry("b", 1, {"kl": 0.5})
    disk.full = True
    recorder.turn()
    assert told == []
    disk.full = False
    clock.now += 1.0
    recorder.turn()
    assert told == [{"a", "b"}]
    recorder.close()
