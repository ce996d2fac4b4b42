"""The file of runs: exact, additive, bounded, shared, and refused when it is another file."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_monitors.changes import Changes
from assay_monitors.codec import (
    gold_from_json,
    gold_to_json,
    pack_summary,
    unpack_summary,
)
from assay_monitors.database import StoreError
from assay_monitors.gold import GoldItem, GoldPoint, measure
from assay_monitors.health import channel_health, evaluate_rules
from assay_monitors.history import (
    TRAINER_STREAM,
    RunHistory,
    Stream,
    Update,
)
from assay_monitors.intervals import exact
from assay_monitors.observations import Observation, Window
from assay_monitors.retention import Retention
from assay_monitors.run_file import make_private_folder
from assay_monitors.store import RunStore
from assay_monitors.summaries import Summary, summarise

from .series import observations, run
from .stores import CODE, changes_of, new_run, open_store


@given(st.lists(observations, max_size=6))
@settings(max_examples=100, deadline=None)
def test_a_summary_is_stored_exactly(items: list[Observation]) -> None:
    summary = summarise(items)
    summary.add_telemetry({"kl": 0.1})
    assert unpack_summary(pack_summary(summary)) == summary


def test_gold_is_stored_exactly() -> None:
    point = measure(5, [GoldItem("a", 0.1, 0.0), GoldItem("a", 0.3, 1.0)], gradient_norm=2.0)
    assert gold_from_json(gold_to_json(point)) == point


def test_a_write_adds_to_the_stored_summary(path: Path, store: RunStore) -> None:
    (first,) = run(1, range(1))
    (second,) = run(2, range(1))
    for point in (first, second):
        store.write(Changes({Window("r", *CODE, 0): point.summary}))
    whole = Summary()
    whole.merge(first.summary)
    whole.merge(second.summary)
    (point,) = RunHistory(path).series("r", CODE)
    assert point.summary == whole


def test_a_write_does_not_change_its_argument(store: RunStore) -> None:
    changes = changes_of("r", 0)
    store.write(changes)
    store.write(changes)
    assert changes == changes_of("r", 0)


def test_runs_streams_and_steps_are_kept_apart(path: Path, store: RunStore) -> None:
    other = Stream("nli@2", "eval")
    for run_id, step, stream in (("b", 7, CODE), ("a", 2, CODE), ("a", 1, CODE), ("a", 1, other)):
        store.write(changes_of(run_id, step, stream=stream))
    history = RunHistory(path)
    assert [known.run for known in history.runs()] == ["a", "b"]
    assert history.runs()[0].first_seen < history.runs()[0].last_seen
    assert history.streams("a") == [CODE, other]
    assert [point.step for point in history.series("a", CODE)] == [1, 2]
    assert history.series("unknown", CODE) == []


def test_telemetry_is_part_of_every_stream(path: Path, store: RunStore) -> None:
    telemetry = Summary()
    telemetry.add_telemetry({"kl": 0.5})
    store.write(changes_of("r", 1))
    windows = [Window("r", *TRAINER_STREAM, step) for step in (1, 2)]
    store.write(Changes(dict.fromkeys(windows, telemetry)))
    history = RunHistory(path)
    assert history.streams("r") == [CODE]
    points = history.series("r", CODE)
    assert [(point.step, point.summary.items) for point in points] == [(1, 1), (2, 0)]
    assert points[0].summary.telemetry["kl"].mean == 0.5
    assert [point.summary.items for point in history.series("r", TRAINER_STREAM)] == [0, 0]


def test_a_second_gold_measurement_of_a_step_replaces_the_first(
    path: Path, store: RunStore
) -> None:
    for value in (0.1, 0.2):
        store.write(Changes(gold={("r", "tests", 5): GoldPoint(5, gold=exact(value))}))
    store.write(Changes(gold={("r", "judge", 3): GoldPoint(3)}))
    assert RunHistory(path).gold("r") == {
        "tests": [GoldPoint(5, gold=exact(0.2))],
        "judge": [GoldPoint(3)],
    }
    assert set(store.owners()) == {"r"}


def test_health_of_a_stored_series_is_that_of_the_series(path: Path, store: RunStore) -> None:
    series = run(4, range(0, 60, 5))
    store.write(Changes({Window("r", *CODE, point.step): point.summary for point in series}))
    stored = RunHistory(path).series("r", CODE)
    assert evaluate_rules(stored) == evaluate_rules(series)
    assert channel_health(stored) == channel_health(series)


def test_the_most_recently_seen_runs_are_kept(path: Path) -> None:
    store = open_store(path)
    for run_id in ("a", "b", "c"):
        store.write(changes_of(run_id, 0))
    store.close()
    store = RunStore(path, Retention(runs=2, min_age=90.0), lambda: 99.0)
    store.write(changes_of("a", 1))
    store.write(changes_of("d", 1))
    assert set(store.owners()) == {"a", "d"}
    assert RunHistory(path).series("b", CODE) == []
    store.close()


def test_a_long_series_loses_resolution_but_no_observation(path: Path) -> None:
    store = open_store(path)
    for step in range(10):
        store.write(changes_of("r", step, items=step + 1))
    store.close()
    store = open_store(path, steps=10)
    store.write(changes_of("r", 10, items=11))
    points = RunHistory(path).series("r", CODE)
    assert [(point.step, point.summary.items) for point in points] == [
        (1, 3),
        (3, 7),
        *((step, step + 1) for step in range(4, 11)),
    ]
    store.close()


def test_bytes_are_bounded_by_merging_steps_of_the_largest_run(path: Path) -> None:
    store = open_store(path, bytes=200_000)
    (point,) = run(1, range(1), items=256)
    for run_id, steps in (("old", 64), ("new", 65)):
        for step in range(steps):
            store.write(Changes({Window(run_id, *CODE, step): point.summary}))
    for step in range(65, 257):
        store.write(Changes({Window("new", *CODE, step): point.summary}))
    history = RunHistory(path)
    for run_id, steps in (("old", 64), ("new", 257)):
        points = history.series(run_id, CODE)
        assert sum(point.summary.items for point in points) == steps * 256
        assert len(points) < steps
        assert points[-1].step == steps - 1
    assert path.stat().st_size <= 200_000
    store.close()


def test_the_number_of_runs_is_bounded_after_each_commit(path: Path) -> None:
    store = open_store(path, runs=3, min_age=0.0)
    for number in range(20):
        store.write(changes_of(str(number), 0))
        assert len(store.owners()) <= 3
    store.close()


def test_two_processes_may_write_one_file(path: Path, store: RunStore) -> None:
    other = open_store(path)
    for writer in (store, other, store):
        writer.write(changes_of("r", 0, items=2))
    (point,) = RunHistory(path).series("r", CODE)
    assert point.summary.items == 6
    other.close()


def test_a_reader_sees_the_last_commit_during_a_write(path: Path, store: RunStore) -> None:
    store.write(changes_of("r", 0))
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO runs VALUES ('unfinished', 0, 0)")
    assert [known.run for known in RunHistory(path).runs()] == ["r"]
    writer.close()


def test_a_failing_write_writes_nothing(path: Path, store: RunStore) -> None:
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TRIGGER full BEFORE INSERT ON gold BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    connection.close()
    changes = changes_of("r", 0)
    changes.gold[("r", "tests", 0)] = GoldPoint(0)
    with pytest.raises(sqlite3.Error, match="full"):
        store.write(changes)
    assert RunHistory(path).runs() == []


def test_a_file_that_is_no_database_is_refused_and_not_changed(path: Path) -> None:
    path.write_text("notes, and no database at all, " * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        open_store(path)
    assert path.read_text().startswith("notes")


def test_another_database_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    with pytest.raises(StoreError, match="version 0"):
        open_store(path)


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    open_store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="version 99"):
        open_store(path)


def test_the_largest_values_are_stored_exactly(path: Path, store: RunStore) -> None:
    summary = summarise([Observation(sys.float_info.max, {"a": -sys.float_info.max})] * 100)
    store.write(Changes({Window("r", *CODE, 0): summary}))
    (point,) = RunHistory(path).series("r", CODE)
    assert point.summary == summary


def test_a_deleted_run_leaves_nothing_behind(path: Path, store: RunStore) -> None:
    store.write(changes_of("r", 1))
    store.write(Changes(gold={("r", "tests", 1): GoldPoint(1)}, last_steps={"r": 1}))
    store.write(changes_of("other", 1))
    assert store.edit("r", note="a note") == "done"
    assert (store.delete("r"), store.delete("r")) == ("done", "not_found")
    assert [known.run for known in RunHistory(path).runs()] == ["other"]
    with sqlite3.connect(path) as connection:
        for table in ("windows", "gold", "details"):
            query = f"SELECT count(*) FROM {table} WHERE run = 'r'"
            assert connection.execute(query).fetchone() == (0,)


def test_a_renamed_run_keeps_its_steps_gold_note_and_times(path: Path, store: RunStore) -> None:
    history = RunHistory(path)
    store.write(changes_of("old", 3))
    store.write(Changes(gold={("old", "tests", 4): GoldPoint(4)}, last_steps={"old": 4}))
    (before,) = history.runs()
    assert store.edit("old", name="new", note="why") == "done"
    assert history.runs() == [before._replace(run="new", note="why")]
    assert [point.step for point in history.series("new", CODE)] == [3]
    assert (list(history.gold("new")), history.gold("old")) == (["tests"], {})
    origin = history.step_origin("new")
    assert origin is not None
    assert origin[:2] == (4, before.first_seen)


def test_a_run_is_not_renamed_to_another_and_nothing_is_changed(
    path: Path, store: RunStore
) -> None:
    store.write(changes_of("a", 1))
    store.write(changes_of("b", 1))
    before = RunHistory(path).runs()
    assert store.edit("a", name="b", note="lost") == "name_taken"
    assert store.edit("unknown", name="c", note="lost") == "not_found"
    assert RunHistory(path).runs() == before
    assert store.edit("a", name="a") == "done"


def test_an_empty_note_removes_the_note(path: Path, store: RunStore) -> None:
    store.write(changes_of("r", 1))
    for note, kept in (("first", "first"), ("second", "second"), ("", None)):
        assert store.edit("r", note=note) == "done"
        assert RunHistory(path).runs()[0].note == kept


def test_a_file_without_notes_is_read_and_takes_them(path: Path) -> None:
    store = open_store(path)
    store.write(changes_of("r", 1))
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE details")
    store = open_store(path)
    assert RunHistory(path).runs()[0].note is None
    assert store.edit("r", note="new") == "done"
    store.close()


def test_expected_runs_are_known_before_they_are_stored(path: Path, store: RunStore) -> None:
    history = RunHistory(path, lambda: {"stored": 99.0, "new": 98.0})
    store.write(changes_of("stored", 7))
    assert [(known.run, known.first_seen) for known in history.runs()] == [
        ("new", 98.0),
        ("stored", 1.0),
    ]
    assert history.updates(["new", "stored", "unknown"]) == {
        "new": Update(98.0, None),
        "stored": Update(1.0, 7),
    }
    assert history.series("new", CODE) == []


EARLIER_SCHEMA = """
CREATE TABLE runs (run TEXT PRIMARY KEY, first_seen REAL NOT NULL, last_seen REAL NOT NULL);
CREATE TABLE windows (run TEXT NOT NULL, model TEXT NOT NULL, split TEXT NOT NULL,
    step INTEGER NOT NULL, summary BLOB NOT NULL, PRIMARY KEY (run, model, split, step));
CREATE TABLE gold (run TEXT NOT NULL, source TEXT NOT NULL, step INTEGER NOT NULL,
    point TEXT NOT NULL, PRIMARY KEY (run, source, step));
CREATE TABLE details (run TEXT PRIMARY KEY, note TEXT, last_step INTEGER);
PRAGMA user_version = 1;
"""


def test_a_file_of_an_earlier_release_gets_owners_and_keeps_its_runs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as earlier, earlier:
        earlier.executescript(EARLIER_SCHEMA)
        earlier.execute("INSERT INTO runs VALUES ('r', 0.25, 0.5)")
        summary = pack_summary(summarise([Observation(0.5)]))
        earlier.execute("INSERT INTO windows VALUES ('r', 'code@1', 'train', 3, ?)", (summary,))
        earlier.execute("INSERT INTO details VALUES ('r', 'a note', 3)")
    for owners in ({"r": ""}, {"r": "", "s": "alice"}):
        store = open_store(path)
        assert store.owners() == owners
        store.write(new_run("s", "alice"))
        store.close()
    history = RunHistory(path)
    assert [(known.run, known.note, known.owner) for known in history.runs()] == [
        ("s", None, "alice"),
        ("r", "a note", ""),
    ]
    assert [point.step for point in history.series("r", CODE)] == [3]
    with closing(sqlite3.connect(path)) as connection, connection:
        # The earlier release adds runs to the file as it always has.
        connection.execute("INSERT INTO runs VALUES ('t', 0.25, 0.25)")
        connection.execute("INSERT INTO details (run, last_step) VALUES ('t', 1)")
    assert [known.run for known in history.runs()] == ["s", "r", "t"]


def test_the_file_and_a_folder_made_for_it_are_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deep" / "runs.db"
    make_private_folder(path.parent)
    store = open_store(path)
    store.write(changes_of("r", 1))
    for private in (path, path.with_name("runs.db-wal"), path.with_name("runs.db-shm")):
        assert private.stat().st_mode & 0o777 == 0o600, private
    assert [parent.stat().st_mode & 0o777 for parent in path.parents[:2]] == [0o700, 0o700]
    store.close()
    path.chmod(0o644)
    open_store(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
