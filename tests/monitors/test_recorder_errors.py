"""Errors of a recorder: each costs its own run alone, and none ends the writer."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from assay_monitors.admission import Writer
from assay_monitors.changes import Changes, Outcome
from assay_monitors.database import LostCommitError, StoreUnavailableError
from assay_monitors.history import RunHistory
from assay_monitors.recorder import Recorder
from assay_monitors.store import RunStore

from .stores import Clock, Disk, items, stored_items, window


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


def test_a_reason_why_nothing_is_written_is_logged_once_until_it_is_over(
    recorder: Recorder,
    clock: Clock,
    *,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    write = Disk.write
    for reason in ("away", "away", "password", "away", None, None, "away"):
        monkeypatch.setattr(Disk, "write", unavailable(reason) if reason else write)
        recorder.record(window(), items(1))
        recorder.process_queue()
        clock.now += 1.0
        recorder.process_queue()
    assert [record.getMessage() for record in caplog.records] == [
        "runs cannot be written, which is tried again: away",
        "runs cannot be written, which is tried again: password",
        "runs are written again",
        "runs cannot be written, which is tried again: away",
    ]


def unavailable(reason: str) -> Callable[[Disk, Changes], Outcome]:
    def write(disk: Disk, changes: Changes) -> Outcome:
        raise StoreUnavailableError(reason)

    return write
