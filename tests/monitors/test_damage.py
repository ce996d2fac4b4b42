"""A damaged file of runs: what cannot be read is left out, set aside, and counted."""

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from assay_monitors.changes import Changes
from assay_monitors.codec import pack_summary
from assay_monitors.database import ReadTimeoutError
from assay_monitors.gold import GoldPoint
from assay_monitors.history import RunHistory
from assay_monitors.observations import Observation, Window
from assay_monitors.store import RunStore
from assay_monitors.summaries import summarise

from .series import run
from .stores import CODE, changes_of, open_store

PACKED = zlib.decompress(pack_summary(summarise([Observation(0.5)])))
UNREADABLE: dict[str, object] = {
    "noise": b"\x00\x11",
    "text": "no summary",
    "number": 3.5,
    "cut": pack_summary(summarise([Observation(0.5)] * 9))[:-9],
    "another shape": zlib.compress(b"[1, 2]"),
    "a later version": zlib.compress(b'{"version": 2}'),
    "a wrong type": zlib.compress(PACKED.replace(b":1,", b':"1",', 1)),
    "not finite": zlib.compress(PACKED.replace(b"0.5", b"NaN", 1)),
    "deep": zlib.compress(b"[" * 100_000),
    "huge": zlib.compress(b" " * 2**24),
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_row_that_cannot_be_read_counts_as_absent_and_is_set_aside_once(
    path: Path, store: RunStore, content: object
) -> None:
    store.write(changes_of("r", 1, items=2))
    store.write(changes_of("r", 2, items=3))
    store.write(Changes(gold={("r", "tests", 1): GoldPoint(1), ("r", "tests", 2): GoldPoint(2)}))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE windows SET summary = ? WHERE step = 1", (content,))
        connection.execute("UPDATE gold SET point = ? WHERE step = 1", (content,))
    history = RunHistory(path)
    assert [point.summary.items for point in history.series("r", CODE)] == [3]
    assert history.gold("r") == {"tests": [GoldPoint(2)]}
    assert history.damaged_rows("r") == 2
    assert store.write(changes_of("r", 1, items=5)).damaged == 1
    assert (store.set_aside_damaged("r"), store.set_aside_damaged("r")) == (1, 0)
    history = RunHistory(path)
    assert [point.summary.items for point in history.series("r", CODE)] == [5, 3]
    assert (history.gold("r"), history.damaged) == ({"tests": [GoldPoint(2)]}, {})
    assert history.damaged_rows("r") == 2


def test_a_merge_of_steps_sets_aside_what_cannot_be_read(path: Path) -> None:
    store = open_store(path, steps=6)
    for step in range(6):
        store.write(changes_of("r", step, items=2))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE windows SET summary = x'00' WHERE step = 1")
    store.close()
    store = open_store(path, steps=6)
    store.write(changes_of("r", 6, items=2))
    assert [point.step for point in RunHistory(path).series("r", CODE)] == [0, 2, 3, 4, 5, 6]
    assert RunHistory(path).damaged_rows("r") == 1
    store.close()


def test_values_of_foreign_types_in_the_tables_do_not_break_a_reader(
    path: Path, store: RunStore
) -> None:
    store.write(changes_of("r", 1))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO runs VALUES (CAST(x'ff41' AS TEXT), 'then', x'00')")
        connection.execute(
            "INSERT INTO windows SELECT run, model, split, 'two', summary FROM windows"
        )
    history = RunHistory(path)
    assert [known.run for known in history.runs()] == ["r", "\ufffdA"]
    assert [point.step for point in history.series("r", CODE)] == [1]
    assert history.updates(["r"])["r"].step == 1
    assert store.set_aside_damaged("r") == 1


def test_a_reader_of_a_file_with_damaged_pages_returns_what_is_readable(
    path: Path, store: RunStore
) -> None:
    (point,) = run(1, range(1), items=256)
    for step in range(200):
        store.write(Changes({Window("r", *CODE, step): point.summary}))
    store.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size * 2 // 3)
        file.write(bytes([0xA5]) * 16_384)
    history = RunHistory(path)
    points = history.series("r", CODE)
    assert 0 < len(points) < 200
    assert history.damaged["r"] >= 1


def test_a_reader_whose_time_is_over_ends(path: Path, store: RunStore) -> None:
    for step in range(40):
        store.write(changes_of("r", step))
    with pytest.raises(ReadTimeoutError):
        RunHistory(path).until(lambda: True).runs()
    calls = iter(range(10**6))
    with pytest.raises(ReadTimeoutError):
        RunHistory(path).until(lambda: next(calls) > 20).series("r", CODE)
    assert next(calls) < 30
