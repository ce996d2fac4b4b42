"""The recorder, iteration by iteration: when it commits, what it drops, how it handles errors."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping

import pytest

from assay_monitors.admission import Writer
from assay_monitors.committer import MAX_WINDOWS
from assay_monitors.gold import GoldPoint
from assay_monitors.history import TRAINER_STREAM, RunHistory
from assay_monitors.recorder import Recorder

from .stores import Clock, Disk, items, stored_items, window


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
    runs = ("r", "other", "unknown")
    origins = [origin and origin[:2] for origin in map(history.step_origin, runs)]
    assert origins == [(6, 0.0), (None, 0.0), None]


def test_a_step_without_a_time_does_not_keep_the_time_of_an_earlier_one(
    recorder: Recorder, history: RunHistory
) -> None:
    recorder.record(window(step=5), items(1), named_at=-9.0)
    recorder.record_telemetry("r", 6, {"kl": 0.1})
    recorder.process_queue()
    origin = history.step_origin("r")
    assert origin is not None
    assert (origin.last_step, origin.named_at) == (6, 0.0)
