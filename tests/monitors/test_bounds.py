"""The bounds of the file of runs: bytes, places in a run, and the runs of each owner."""

from pathlib import Path

import pytest

from assay_monitors.admission import Writer
from assay_monitors.changes import Changes
from assay_monitors.gold import GoldPoint
from assay_monitors.history import RunHistory, Stream
from assay_monitors.intervals import exact
from assay_monitors.observations import Window
from assay_monitors.store import RunStore

from .series import run
from .stores import CODE, changes_of, new_run, open_store

VICTIM = 40


def victim_of(path: Path) -> tuple[int, list[int]]:
    """Return the items and the steps that are left of the run `victim`."""
    series = RunHistory(path).series("victim", CODE)
    return sum(point.summary.items for point in series), [point.step for point in series]


def write_victim(store: RunStore) -> None:
    for step in range(VICTIM):
        store.write(changes_of("victim", step, items=4))


def test_a_run_of_many_splits_has_a_bounded_number_of_them_and_costs_no_other_run(
    path: Path,
) -> None:
    store = open_store(path, bytes=2**20)
    write_victim(store)
    refused = 0
    for start in range(0, 2_600, 100):
        splits = [Stream("code@1", f"split-{number}") for number in range(start, start + 100)]
        changes = [changes_of("many", 1, stream=split).windows for split in splits]
        windows = {window: summary for part in changes for window, summary in part.items()}
        refused += store.write(Changes(windows)).refused["streams"]
    assert (len(RunHistory(path).streams("many")), refused) == (64, 2_536)
    assert victim_of(path) == (4 * VICTIM, list(range(VICTIM)))
    store.close()
    assert path.stat().st_size <= 2**20


def test_a_run_of_many_gold_sources_has_a_bounded_number_of_them(path: Path) -> None:
    store = open_store(path, bytes=2**20)
    write_victim(store)
    refused = 0
    for start in range(0, 13_000, 500):
        keys = [("many", f"source-{number}", 1) for number in range(start, start + 500)]
        outcome = store.write(Changes(gold={key: GoldPoint(1, gold=exact(0.5)) for key in keys}))
        refused += outcome.refused["sources"]
    assert (len(RunHistory(path).sources("many")), refused) == (16, 12_984)
    assert victim_of(path) == (4 * VICTIM, list(range(VICTIM)))
    store.close()
    assert path.stat().st_size <= 2**20


def test_a_large_run_is_thinned_in_all_its_streams_and_gold_before_another_is_forgotten(
    path: Path,
) -> None:
    store = open_store(path, bytes=2**20)
    write_victim(store)
    (point,) = run(1, range(1), items=256)
    splits = [Stream("code@1", f"split-{number}") for number in range(8)]
    for step in range(60):
        windows = {Window("large", *split, step): point.summary for split in splits}
        gold = {("large", f"source-{n}", step): GoldPoint(step, gold=exact(0.5)) for n in range(16)}
        store.write(Changes(windows, gold))
    history = RunHistory(path)
    assert victim_of(path) == (4 * VICTIM, list(range(VICTIM)))
    for split in splits:
        points = history.series("large", split)
        assert sum(kept.summary.items for kept in points) == 60 * 256
        assert points[-1].step == 59
    for source, measured in history.gold("large").items():
        assert (measured[0].step, measured[-1].step) == (0, 59), source
    store.close()
    assert path.stat().st_size <= 2**20


def test_a_run_that_cannot_be_thinned_is_forgotten_and_not_the_smaller_one(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(path, bytes=2**17)
    write_victim(store)
    (point,) = run(1, range(1), items=256)
    for number in range(64):
        window = Window("large", "code@1", f"split-{number}", 1)
        store.write(Changes({window: point.summary}))
    assert "the run 'large' was forgotten" in caplog.text
    assert victim_of(path)[0] == 4 * VICTIM
    assert path.stat().st_size <= 2**17
    store.close()


def test_an_owner_forgets_its_own_runs_for_new_ones_and_no_other_owner_does(path: Path) -> None:
    store = open_store(path, runs=6, min_age=0.0)
    for number in range(3):
        store.write(new_run(f"alice-{number}", "alice"))
    for number in range(9):
        assert not store.write(new_run(f"bob-{number}", "bob")).refused
    assert set(store.owners()) == {*(f"alice-{n}" for n in range(3)), "bob-6", "bob-7", "bob-8"}
    store.close()


def test_an_owner_with_less_than_its_share_takes_the_place_of_one_with_more(path: Path) -> None:
    store = open_store(path, runs=4)
    for number in range(4):
        store.write(new_run(f"alice-{number}", "alice"))
    refused = store.write(new_run("alice-4", "alice")).refused
    assert refused == {"runs": 1}  # all of its runs were seen today
    for number in range(2):
        assert not store.write(new_run(f"bob-{number}", "bob")).refused
    assert store.write(new_run("bob-2", "bob")).refused == {"runs": 1}
    assert set(store.owners()) == {"alice-2", "alice-3", "bob-0", "bob-1"}
    store.close()


def test_a_pinned_run_is_never_forgotten_and_pins_are_bounded(path: Path) -> None:
    store = open_store(path, runs=3, pins=2, min_age=0.0)
    for name in ("a", "b", "c"):
        store.write(changes_of(name, 1))
    assert [store.edit(name, pinned=True) for name in ("a", "b", "c", "a")] == [
        *("done", "done", "too_many_pins", "done")
    ]
    for name in ("d", "e"):
        store.write(changes_of(name, 1))
    assert set(store.owners()) == {"a", "b", "e"}
    assert [known.pinned for known in RunHistory(path).runs()] == [False, True, True]
    assert (store.edit("a", pinned=False), store.edit("e", pinned=True)) == ("done", "done")
    store.close()


def test_a_run_is_changed_by_its_owner_and_by_an_admin_only(path: Path, store: RunStore) -> None:
    store.write(new_run("r", "alice"))
    bob, alice, admin = Writer("bob", False), Writer("alice", False), Writer("root", True)
    assert store.edit("r", note="mine", writer=bob) == "forbidden"
    assert store.delete("r", bob) == "forbidden"
    assert store.write(new_run("r", "bob")).refused == {"owner": 1}
    assert store.edit("r", note="mine", writer=alice) == "done"
    assert store.edit("r", name="s", writer=admin) == "done"
    assert store.owners() == {"s": "alice"}
    assert RunHistory(path).runs()[0].note == "mine"
    assert store.delete("s", alice) == "done"
