"""The recorder, iteration by iteration: when it commits, what it drops, how it handles errors."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from assay_monitors.admission import Writer
from assay_monitors.gold import GoldPoint
from assay_monitors.history import TRAINER_STREAM, RunHistory, Stream
from assay_monitors.observations import Observation, Window
from assay_monitors.recorder import MAX_WINDOWS, Recorder
from assay_monitors.retention import Retention
from assay_monitors.store import Changes, LostCommitError, Outcome, RunStore

STREAM = Stream("code@1", "train")


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

    def __init__(self, path: Path) -> None:
        super().__init__(path, Retention(), lambda: 0.0)
        self.written = threading.Event()

    def write(self, changes: Changes) -> Outcome:
        self.attempts += 1
        if self.is_full:
            raise sqlite3.OperationalError("database or disk is full")
        outcome = super().write(changes)
        self.written.set()
        return outcome


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


def window(run: str = "r", step: int = 0) -> Window:
    return Window(run, *STREAM, step)


def items(number: int) -> list[Observation]:
    return [Observation(0.5)] * number


def stored_items(history: RunHistory, run: str = "r") -> int:
    return sum(point.summary.items for point in history.series(run, STREAM))


def test_a_new_run_is_written_at_once(recorder: Recorder, history: RunHistory) -> None:
    recorder.record(window(), items(2))
    assert recorder.process_queue() is None
    assert stored_items(history) == 2


def test_a_known_run_is_written_when_it_is_due(
    recorder: Recorder, history: RunHistory, clock: Clock, disk: Disk
) -> None:
    recorder.record(window(), items(1))
    recorder.process_queue()
    for step in range(3):
        recorder.record(window(step=step), items(1))
        assert recorder.process_queue() == 0.25 - step / 16
        clock.now += 1 / 16
    assert stored_items(history) == 1
    clock.now += 1 / 16
    assert recorder.process_queue() is None
    assert stored_items(history) == 4
    assert disk.attempts == 2
    assert recorder.counts.written == 4


def test_a_run_from_before_a_restart_is_not_new(
    recorder: Recorder, disk: Disk, clock: Clock
) -> None:
    recorder.record(window(), items(1))
    recorder.process_queue()
    again = Recorder(disk, clock)
    again.record(window(), items(1))
    assert again.process_queue() == 0.25


def test_observations_beyond_the_capacity_are_dropped_and_counted(
    recorder: Recorder, history: RunHistory
) -> None:
    assert recorder.record(window(), items(60))
    assert not recorder.record(window(), items(41))
    assert recorder.record(window(), items(40))
    assert recorder.counts.dropped == 41
    recorder.process_queue()
    assert recorder.record(window(), items(100))
    assert stored_items(history) == 100


def test_telemetry_and_gold_are_queued_and_written(recorder: Recorder, history: RunHistory) -> None:
    assert recorder.record_telemetry("r", 3, {"kl": 0.5})
    assert recorder.record_gold("r", "tests", GoldPoint(3))
    recorder.process_queue()
    (point,) = history.series("r", TRAINER_STREAM)
    assert point.summary.telemetry["kl"].mean == 0.5
    assert history.gold("r") == {"tests": [GoldPoint(3)]}


def test_a_failed_commit_is_repeated_without_loss(
    recorder: Recorder, history: RunHistory, disk: Disk, clock: Clock
) -> None:
    disk.is_full = True
    recorder.record(window(), items(5))
    assert recorder.process_queue() == 0.25
    recorder.record(window("other"), items(5))
    recorder.process_queue()
    assert (disk.attempts, recorder.counts.failed_commits) == (1, 1)
    disk.is_full = False
    clock.now += 0.25
    recorder.process_queue()
    assert (stored_items(history), stored_items(history, "other")) == (5, 5)
    assert recorder.counts.dropped == 0


def test_a_full_disk_keeps_a_bounded_number_of_windows(
    recorder: Recorder, disk: Disk, clock: Clock
) -> None:
    disk.is_full = True
    for step in range(MAX_WINDOWS + 10):
        recorder.record(window(step=step), items(1))
        recorder.process_queue()
    assert recorder.counts.dropped == 10
    clock.now += 1
    recorder.process_queue()
    assert disk.attempts == 2


def test_too_many_windows_are_written_before_they_are_due(
    recorder: Recorder, history: RunHistory
) -> None:
    recorder.record(window(), items(1))
    recorder.process_queue()
    for step in range(MAX_WINDOWS):
        recorder.record(window(step=step), items(1))
        recorder.process_queue()
    assert stored_items(history) == 1 + MAX_WINDOWS


def test_close_writes_the_queue_and_later_records_are_dropped(
    recorder: Recorder, history: RunHistory, disk: Disk
) -> None:
    recorder.record(window(), items(1))
    recorder.process_queue()
    for step in range(9):
        recorder.record(window(step=step), items(1))
    recorder.close()
    assert stored_items(history) == 10
    assert disk.attempts == 2
    assert not recorder.record(window(), items(1))


def test_close_on_a_full_disk_counts_the_lost_observations(recorder: Recorder, disk: Disk) -> None:
    disk.is_full = True
    recorder.record(window(), items(7))
    for _ in range(2):
        recorder.close()
        assert recorder.counts.dropped == 7


def test_the_writer_thread_writes_what_is_recorded(disk: Disk, history: RunHistory) -> None:
    recorder = Recorder(disk, lambda: 0.0)
    assert not recorder.is_alive
    recorder.start()
    assert recorder.is_alive
    recorder.record(window(), items(3))
    assert disk.written.wait(30)
    assert stored_items(history) == 3
    recorder.record(window(), items(4))
    recorder.close()
    assert not recorder.is_alive
    assert stored_items(history) == 7


def test_concurrent_records_are_all_written(disk: Disk, history: RunHistory) -> None:
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
    assert [stored_items(history, str(number)) for number in range(4)] == [100] * 4
    assert (recorder.counts.written, recorder.counts.dropped) == (400, 0)


class CountingEvent(threading.Event):
    """An event that counts how often any of its kind was set."""

    times_set = 0

    def set(self) -> None:
        CountingEvent.times_set += 1
        super().set()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, disk: Disk, clock: Clock) -> Iterator[Recorder]:
    """A recorder whose wake-ups are counted; its run `r` is known already."""
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Event", CountingEvent)
        recorder = Recorder(disk, clock, interval=0.25, capacity=100)
    recorder.record(window(), items(1))
    recorder.process_queue()
    monkeypatch.setattr(CountingEvent, "times_set", 0)
    yield recorder
    recorder.close()


def test_the_writer_is_woken_once_for_each_commit(
    counted: Recorder, clock: Clock, history: RunHistory
) -> None:
    for _ in range(10):
        counted.record(window(), items(1))
    assert (CountingEvent.times_set, counted.process_queue()) == (1, 0.25)
    for _ in range(5):
        counted.record(window(), items(1))
    assert CountingEvent.times_set == 1
    clock.now += 0.25
    assert counted.process_queue() is None
    assert stored_items(history) == 16
    counted.record(window(), items(1))
    assert CountingEvent.times_set == 2


def test_a_new_run_and_a_half_full_queue_wake_the_writer(counted: Recorder) -> None:
    counted.record(window(), items(1))
    CountingEvent.times_set = 0
    counted.record(window("new"), items(1))
    assert CountingEvent.times_set == 1
    counted.record(window(), items(48))
    assert CountingEvent.times_set == 1
    counted.record(window(), items(1))
    assert CountingEvent.times_set == 2


def test_on_commit_gets_the_runs_that_were_written(disk: Disk, clock: Clock) -> None:
    committed: list[Mapping[str, str]] = []
    recorder = Recorder(disk, clock, on_commit=committed.append)
    recorder.record(window("a"), items(1))
    recorder.record_telemetry("b", 1, {"kl": 0.5})
    disk.is_full = True
    recorder.process_queue()
    assert committed == []
    disk.is_full = False
    clock.now += 1.0
    recorder.process_queue()
    assert committed == [{"a": "", "b": ""}]
    recorder.close()


def test_a_deletion_includes_what_was_recorded_before_and_nothing_after(
    recorder: Recorder, history: RunHistory
) -> None:
    recorder.record(window(), items(3))
    deleted = recorder.delete("r")
    recorder.record(window(), items(2))
    recorder.process_queue()
    assert deleted.result(timeout=0) == "done"
    assert stored_items(history) == 2


def test_an_edit_follows_what_was_recorded_before(recorder: Recorder, history: RunHistory) -> None:
    recorder.record(window(), items(3))
    edited = recorder.edit("r", name="new", note="why")
    unknown = recorder.edit("r", name="new", note=None)
    recorder.process_queue()
    assert (edited.result(timeout=0), unknown.result(timeout=0)) == ("done", "not_found")
    assert (stored_items(history, "new"), history.runs()[0].note) == (3, "why")


def test_a_deletion_fails_while_earlier_data_cannot_be_written(
    recorder: Recorder, disk: Disk, history: RunHistory
) -> None:
    disk.is_full = True
    recorder.record(window(), items(3))
    deleted = recorder.delete("r")
    recorder.process_queue()
    with pytest.raises(sqlite3.OperationalError, match="could not be written"):
        deleted.result(timeout=0)
    disk.is_full = False


def test_an_order_that_was_cancelled_is_not_done_and_the_next_is(
    disk: Disk, history: RunHistory
) -> None:
    recorder = Recorder(disk, lambda: 0.0)
    recorder.record(window(), items(3))
    cancelled = recorder.delete("r")
    assert cancelled.cancel()
    edited = recorder.edit("r", name=None, note="kept")
    recorder.start()
    assert edited.result(timeout=30) == "done"
    assert (stored_items(history), recorder.is_alive) == (3, True)
    recorder.close()


def test_an_order_that_raises_any_error_does_not_end_the_writer(
    disk: Disk, history: RunHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenError(Exception):
        pass

    def broken(store: RunStore, run: str, writer: Writer) -> bool:
        raise BrokenError(run)

    monkeypatch.setattr(RunStore, "delete", broken)
    recorder = Recorder(disk, lambda: 0.0)
    recorder.start()
    with pytest.raises(BrokenError, match="r"):
        recorder.delete("r").result(timeout=30)
    recorder.record(window(), items(3))
    assert recorder.edit("r", name=None, note="kept").result(timeout=30) == "done"
    assert stored_items(history) == 3
    recorder.close()


def test_a_summary_that_cannot_be_read_is_set_aside_and_ends_no_recording(
    recorder: Recorder,
    history: RunHistory,
    tmp_path: Path,
    *,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder.record(window(), items(1))
    recorder.process_queue()
    connection = sqlite3.connect(tmp_path / "runs.db")
    with connection:
        connection.execute("UPDATE windows SET summary = x'00'")
    connection.close()
    recorder.record(window(), items(1))
    recorder.record(window("new"), items(1))
    recorder.process_queue()
    assert (recorder.counts.failed_commits, recorder.counts.damaged_rows) == (0, 1)
    assert (stored_items(history), stored_items(history, "new")) == (1, 1)
    assert (history.damaged_rows("r"), history.damaged_rows("new")) == (1, 0)
    assert "run 'r', step 0: what is stored cannot be read" in caplog.text


def test_an_unexpected_error_costs_its_own_run_alone(
    recorder: Recorder,
    history: RunHistory,
    disk: Disk,
    *,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write = Disk.write

    def failing_write(disk: Disk, changes: Changes) -> Outcome:
        if "bad" in changes.runs:
            raise ZeroDivisionError
        return write(disk, changes)

    monkeypatch.setattr(Disk, "write", failing_write)
    for run in ("bad", "good"):
        recorder.record(window(run), items(3))
    recorder.process_queue()
    assert (stored_items(history, "bad"), stored_items(history, "good")) == (0, 3)
    assert (recorder.counts.dropped, recorder.counts.written) == (3, 3)
    assert "data of the run 'bad' were dropped" in caplog.text
    recorder.record(window("good"), items(1))
    recorder.close()
    assert stored_items(history, "good") == 4


def test_an_error_of_an_iteration_does_not_end_the_writer(
    disk: Disk, history: RunHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_queue, failed = Recorder.process_queue, threading.Event()

    def failing_once(recorder: Recorder) -> float | None:
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError
        return process_queue(recorder)

    monkeypatch.setattr(Recorder, "process_queue", failing_once)
    recorder = Recorder(disk, lambda: 0.0, interval=0.001)
    recorder.start()
    recorder.record(window(), items(3))
    assert failed.wait(30)
    assert disk.written.wait(30)
    assert recorder.is_alive
    recorder.close()
    assert stored_items(history) == 3


def test_what_was_written_and_cannot_be_read_back_is_not_durable_and_not_written_twice(
    recorder: Recorder, history: RunHistory, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(disk: Disk, runs: set[str]) -> None:
        raise LostCommitError("the file does not have what was written")

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "check_written", unreadable)
        recorder.record(window(), items(3))
        recorder.process_queue()
        assert not recorder.counts.is_kept
    recorder.record(window("new"), items(1))
    recorder.process_queue()
    assert recorder.counts.is_kept
    assert (stored_items(history), stored_items(history, "new")) == (3, 1)


def test_a_change_of_another_writer_is_refused_and_counted(
    recorder: Recorder, history: RunHistory
) -> None:
    alice, bob = Writer("alice", False), Writer("bob", False)
    recorder.record(window(), items(2), writer=alice)
    recorder.record(window(), items(3), writer=bob)
    recorder.process_queue()
    recorder.record(window(), items(4), writer=bob)
    recorder.record(window(), items(5), writer=Writer("root", True))
    recorder.close()
    assert stored_items(history) == 7
    assert recorder.counts.refused == {"owner": 7}
    assert (recorder.counts.written, recorder.counts.dropped) == (7, 0)


def test_a_deletion_after_the_end_fails_at_once(recorder: Recorder) -> None:
    recorder.close()
    with pytest.raises(sqlite3.OperationalError, match="stopped"):
        recorder.delete("r").result(timeout=0)


def test_the_step_that_was_named_last_is_stored(recorder: Recorder, history: RunHistory) -> None:
    recorder.record(window(step=5), items(1))
    recorder.record(window(step=9), items(1), names_step=False)
    recorder.record(window("other", 2), items(1), names_step=False)
    recorder.record_telemetry("r", 6, {"kl": 0.1})
    recorder.process_queue()
    origins = [history.step_origin(run) for run in ("r", "other", "unknown")]
    assert origins == [(6, 0.0), (None, 0.0), None]
