"""RunReader: deadlines, the shares of callers, and short questions beside long ones."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from assay.errors import DeadlineExceeded, Overloaded, RunsUnavailable
from assay.runs import reading
from assay.runs.reading import MAX_REPORTS_PER_OWNER, RunReader
from assay_monitors.changes import Changes
from assay_monitors.database import ReadTimeoutError, StoreUnavailableError
from assay_monitors.history import RunHistory
from assay_monitors.observations import Observation, Window
from assay_monitors.postgres import PostgresDatabase
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore
from assay_monitors.summaries import summarise


@pytest.fixture
def history(tmp_path: Path) -> RunHistory:
    store = RunStore(tmp_path / "runs.db", Retention(), lambda: 1.0)
    store.write(Changes({Window("r", "m@1", "train", 1): summarise([Observation(0.5)])}))
    store.close()
    return RunHistory(tmp_path / "runs.db")


def ignore(_: Iterable[str]) -> None:
    """Take in no damage."""


@pytest.fixture
def release() -> Iterator[threading.Event]:
    release = threading.Event()
    yield release
    release.set()


async def test_a_reader_that_takes_too_long_is_answered_with_504_and_ends(
    history: RunHistory,
) -> None:
    reader, ended = RunReader(history, ignore, seconds=0.05), threading.Event()

    def endless(history: RunHistory) -> None:
        try:
            while True:
                history.runs()
        finally:
            ended.set()

    with pytest.raises(DeadlineExceeded) as late:
        await reader.report(endless, "alice")
    assert (late.value.status, late.value.retryable) == (504, True)
    assert late.value.retry_after
    assert late.value.hint is not None
    assert await asyncio.to_thread(ended.wait, 30)
    reader.close()


async def test_a_shared_database_that_does_not_answer_is_unavailable_and_one_that_is_slow_is_not(
    release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "GRACE_SECONDS", 0.05)
    database = RunHistory(PostgresDatabase("postgresql://localhost/runs"))
    reader = RunReader(database, ignore, seconds=0.05)

    def silent(_: RunHistory) -> None:
        release.wait(30)

    def slow(_: RunHistory) -> None:
        raise ReadTimeoutError

    with pytest.raises(RunsUnavailable) as hung:
        await reader.report(silent, "alice")
    assert (hung.value.status, hung.value.retryable) == (503, True)
    with pytest.raises(DeadlineExceeded):
        await reader.read(slow)
    reader.close()


async def test_a_reason_is_logged_once_until_runs_can_be_read_again(
    history: RunHistory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    reader = RunReader(history, ignore)

    for reason in ("refused", "refused", "starting up", "refused", None, None, "refused"):
        if reason is None:
            await reader.read(RunHistory.runs)
            continue
        with pytest.raises(RunsUnavailable):
            await reader.read(partial(fail, reason))
    reader.close()
    assert [record.getMessage() for record in caplog.records] == [
        "runs cannot be read: refused",
        "runs cannot be read: starting up",
        "runs can be read again",
        "runs cannot be read: refused",
    ]


def fail(reason: str, _: RunHistory) -> None:
    raise StoreUnavailableError(reason)


async def test_a_reader_whose_caller_has_left_ends(history: RunHistory) -> None:
    reader = RunReader(history, ignore, seconds=600.0)
    began, ended = threading.Event(), threading.Event()

    def endless(history: RunHistory) -> None:
        try:
            while True:
                history.runs()
                began.set()
        finally:
            ended.set()

    task = asyncio.create_task(reader.report(endless, "alice"))
    assert await asyncio.to_thread(began.wait, 30)
    task.cancel()
    assert await asyncio.to_thread(ended.wait, 30)
    reader.close()


async def test_the_list_of_runs_waits_for_no_report(
    history: RunHistory, release: threading.Event
) -> None:
    reader = RunReader(history, ignore, seconds=30.0)
    reports = [
        asyncio.create_task(reader.report(lambda _: release.wait(30), "alice")) for _ in range(4)
    ]
    assert [run.run for run in await reader.read(lambda history: history.runs())] == ["r"]
    assert not any(report.done() for report in reports)
    release.set()
    assert await asyncio.gather(*reports) == [True] * 4
    reader.close()


async def test_a_key_has_a_share_of_the_reports_and_the_next_key_still_gets_one(
    history: RunHistory, release: threading.Event
) -> None:
    reader = RunReader(history, ignore, seconds=30.0)
    reports = [
        asyncio.create_task(reader.report(lambda _: release.wait(30), "alice"))
        for _ in range(MAX_REPORTS_PER_OWNER)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await reader.report(lambda _: True, "alice")
    other = asyncio.create_task(reader.report(lambda _: True, "bob"))
    await asyncio.sleep(0)
    assert not other.done()
    release.set()
    assert await other is True
    await asyncio.gather(*reports)
    assert await reader.report(lambda _: True, "alice") is True
    reader.close()
