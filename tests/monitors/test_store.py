"""The file of runs: exact, additive, bounded, shared, and refused when it is not ours."""

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_monitors.codec import gold_point, gold_text, packed, unpacked
from assay_monitors.gold import GoldItem, GoldPoint, measure
from assay_monitors.health import health
from assay_monitors.history import TRAINER, RunHistory, Stream
from assay_monitors.intervals import exact
from assay_monitors.observations import Observation, Window
from assay_monitors.retention import Retention
from assay_monitors.store import Changes, RunStore, StoreError
from assay_monitors.summaries import Summary, summarise

from .streams import observations, run

CODE = Stream("code@1", "train")


class Ticks:
    """A clock that is a second later each time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def opened(path: Path, **bounds: int) -> RunStore:
    return RunStore(path, Retention(**bounds), Ticks())


@pytest.fixture
def store(path: Path) -> Iterator[RunStore]:
    store = opened(path)
    yield store
    store.close()


def seen(run_id: str, step: int, items: int = 1, stream: Stream = CODE) -> Changes:
    return Changes({Window(run_id, *stream, step): summarise([Observation(0.5)] * items)})


@given(st.lists(observations, max_size=6))
@settings(max_examples=100, deadline=None)
def test_a_summary_survives_the_file_exactly(items: list[Observation]) -> None:
    summary = summarise(items)
    summary.add_telemetry({"kl": 0.1})
    assert unpacked(packed(summary)) == summary


def test_gold_survives_the_file_exactly() -> None:
    point = measure(5, [GoldItem("a", 0.1, 0.0), GoldItem("a", 0.3, 1.0)], gradient_norm=2.0)
    assert gold_point(gold_text(point)) == point


def test_what_is_written_adds_to_what_is_there(path: Path, store: RunStore) -> None:
    (one,) = run(1, range(1))
    (other,) = run(2, range(1))
    for point in (one, other):
        store.write(Changes({Window("r", *CODE, 0): point.summary}))
    whole = Summary()
    whole.merge(one.summary)
    whole.merge(other.summary)
    (point,) = RunHistory(path).series("r", CODE)
    assert point.summary == whole


def test_writing_does_not_change_what_was_given(store: RunStore) -> None:
    changes = seen("r", 0)
    store.write(changes)
    store.write(changes)
    assert changes == seen("r", 0)


def test_runs_streams_and_steps_are_kept_apart(path: Path, store: RunStore) -> None:
    other = Stream("nli@2", "eval")
    for run_id, step, stream in (("b", 7, CODE), ("a", 2, CODE), ("a", 1, CODE), ("a", 1, other)):
        store.write(seen(run_id, step, stream=stream))
    history = RunHistory(path)
    assert [known.run for known in history.runs()] == ["a", "b"]
    assert history.runs()[0].first_seen < history.runs()[0].last_seen
    assert history.streams("a") == [CODE, other]
    assert [point.step for point in history.series("a", CODE)] == [1, 2]
    assert history.series("nobody", CODE) == []


def test_what_the_trainer_tells_joins_every_stream(path: Path, store: RunStore) -> None:
    told = Summary()
    told.add_telemetry({"kl": 0.5})
    store.write(seen("r", 1))
    store.write(Changes({Window("r", *TRAINER, 1): told, Window("r", *TRAINER, 2): told}))
    history = RunHistory(path)
    assert history.streams("r") == [CODE]
    points = history.series("r", CODE)
    assert [(point.step, point.summary.items) for point in points] == [(1, 1), (2, 0)]
    assert points[0].summary.telemetry["kl"].mean == 0.5
    assert [point.summary.items for point in history.series("r", TRAINER)] == [0, 0]


def test_a_gold_measurement_replaces_its_own(path: Path, store: RunStore) -> None:
    for value in (0.1, 0.2):
        store.write(Changes(gold={("r", "tests", 5): GoldPoint(5, gold=exact(value))}))
    store.write(Changes(gold={("r", "judge", 3): GoldPoint(3)}))
    assert RunHistory(path).gold("r") == {
        "tests": [GoldPoint(5, gold=exact(0.2))],
        "judge": [GoldPoint(3)],
    }
    assert store.runs() == {"r"}


def test_health_is_the_same_from_the_file(path: Path, store: RunStore) -> None:
    series = run(4, range(0, 60, 5))
    store.write(Changes({Window("r", *CODE, point.step): point.summary for point in series}))
    assert health(RunHistory(path).series("r", CODE)) == health(series)


def test_the_runs_that_were_seen_last_are_kept(path: Path) -> None:
    store = opened(path)
    for run_id in ("a", "b", "c"):
        store.write(seen(run_id, 0))
    store.close()
    store = RunStore(path, Retention(runs=2), lambda: 99.0)
    store.write(seen("a", 1))
    assert store.runs() == {"a", "c"}
    assert RunHistory(path).series("b", CODE) == []
    store.close()


def test_a_long_series_loses_resolution_and_no_observation(path: Path) -> None:
    store = opened(path)
    for step in range(10):
        store.write(seen("r", step, items=step + 1))
    store.close()
    store = opened(path, steps=10)
    store.write(seen("r", 10, items=11))
    points = RunHistory(path).series("r", CODE)
    assert [(point.step, point.summary.items) for point in points] == [
        (1, 3),
        (3, 7),
        *((step, step + 1) for step in range(4, 11)),
    ]
    store.close()


def test_bytes_are_bounded_by_forgetting_runs_and_then_by_thinning(path: Path) -> None:
    store = opened(path, bytes=200_000)
    (point,) = run(1, range(1), items=256)
    for run_id, steps in (("old", 64), ("new", 65)):
        for step in range(steps):
            store.write(Changes({Window(run_id, *CODE, step): point.summary}))
    assert store.runs() == {"new"}
    for step in range(65, 257):
        store.write(Changes({Window("new", *CODE, step): point.summary}))
    points = RunHistory(path).series("new", CODE)
    assert sum(one.summary.items for one in points) == 257 * 256
    assert len(points) < 200
    store.close()


def test_bounds_hold_without_being_asked(path: Path) -> None:
    store = opened(path, runs=3)
    for number in range(200):
        store.write(seen(str(number), 0))
    assert len(store.runs()) < 3 + 64
    store.close()


def test_two_processes_may_write_one_file(path: Path, store: RunStore) -> None:
    other = opened(path)
    for writer in (store, other, store):
        writer.write(seen("r", 0, items=2))
    (point,) = RunHistory(path).series("r", CODE)
    assert point.summary.items == 6
    other.close()


def test_a_reader_sees_the_last_commit_while_a_write_is_open(path: Path, store: RunStore) -> None:
    store.write(seen("r", 0))
    with store._transaction():
        store._see("unfinished", 0.0)
        assert [known.run for known in RunHistory(path).runs()] == ["r"]


def test_a_failing_write_writes_nothing(path: Path, store: RunStore) -> None:
    store._connection.execute(
        "CREATE TRIGGER full BEFORE INSERT ON gold BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    changes = seen("r", 0)
    changes.gold[("r", "tests", 0)] = GoldPoint(0)
    with pytest.raises(sqlite3.Error, match="full"):
        store.write(changes)
    assert RunHistory(path).runs() == []


def test_a_file_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("notes, and no database at all, " * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        opened(path)
    assert path.read_text().startswith("notes")


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    with pytest.raises(StoreError, match="version 0"):
        opened(path)


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    opened(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="version 99"):
        opened(path)


def test_the_largest_sums_fit(path: Path, store: RunStore) -> None:
    summary = summarise([Observation(sys.float_info.max, {"a": -sys.float_info.max})] * 100)
    store.write(Changes({Window("r", *CODE, 0): summary}))
    (point,) = RunHistory(path).series("r", CODE)
    assert point.summary == summary
