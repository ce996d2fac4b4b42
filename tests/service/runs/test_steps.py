"""Filing of items without a step: under the step named last, else by the minute."""

import sqlite3
from pathlib import Path

import pytest

from assay.runs.new_runs import MAX_NEW_RUNS, NEW_SECONDS, NewRuns
from assay.runs.steps import (
    READ_SECONDS,
    WINDOW_SECONDS,
    StepFiling,
    next_arrival,
)
from assay_monitors.changes import Changes
from assay_monitors.history import RunHistory
from assay_monitors.observations import Observation, Window
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore
from assay_monitors.summaries import summarise


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path, clock: Clock) -> Path:
    RunStore(tmp_path / "runs.db", Retention(), clock).close()
    return tmp_path / "runs.db"


def store_run(path: Path, clock: Clock, last_step: int | None = None) -> None:
    summary = summarise([Observation(1.0)])
    steps = {} if last_step is None else {"r": last_step}
    store = RunStore(path, Retention(), clock)
    store.write(Changes({Window("r", "m@1", "train", last_step or 0): summary}, last_steps=steps))
    store.close()


def name(filing: StepFiling, step: int, split: str = "train", run: str = "r") -> None:
    filing.name(run, split, arrival=next_arrival(), step=step)


def test_a_named_step_holds_until_another_is_named(path: Path, clock: Clock) -> None:
    filing, history = StepFiling(clock), RunHistory(path)
    name(filing, 7)
    clock.now += 10 * WINDOW_SECONDS
    assert filing.step_of("r", "train", history) == 7
    name(filing, 3)
    assert filing.step_of("r", "train", history) == 3


def test_each_split_has_the_step_that_was_named_last_for_it(path: Path, clock: Clock) -> None:
    filing, history = StepFiling(clock), RunHistory(path)
    name(filing, 100)
    assert filing.step_of("r", "eval", history) == 100
    name(filing, 0, "eval")
    name(filing, 8, run="other")
    steps = [filing.step_of("r", split, history) for split in ("train", "eval", "test")]
    assert steps == [100, 0, 100]


def test_a_request_that_arrived_earlier_moves_no_step_back(path: Path, clock: Clock) -> None:
    filing, history = StepFiling(clock), RunHistory(path)
    first, second = next_arrival(), next_arrival()
    filing.name("r", "train", arrival=second, step=2)
    filing.name("r", "train", arrival=first, step=1)
    assert filing.step_of("r", "train", history) == 2


def test_without_a_step_a_run_has_one_for_each_minute(path: Path, clock: Clock) -> None:
    filing, history = StepFiling(clock), RunHistory(path)
    steps = []
    for seconds in (0.0, WINDOW_SECONDS - 1, 1.0, 5 * WINDOW_SECONDS):
        clock.now += seconds
        steps.append(filing.step_of("r", "train", history))
    assert steps == [0, 0, 1, 6]


def test_a_restarted_server_files_by_the_runs_first_data(path: Path, clock: Clock) -> None:
    store_run(path, clock)
    clock.now += 2 * WINDOW_SECONDS
    assert StepFiling(clock).step_of("r", "train", RunHistory(path)) == 2


def test_a_step_that_another_process_named_is_used_within_a_second(
    path: Path, clock: Clock
) -> None:
    filing, history = StepFiling(clock), RunHistory(path)
    store_run(path, clock)
    assert filing.step_of("r", "train", history) == 0
    store_run(path, clock, last_step=40)
    assert filing.step_of("r", "train", history) == 0
    clock.now += READ_SECONDS
    assert filing.step_of("r", "train", history) == 40


def test_a_clock_that_is_set_back_files_under_the_first_step(path: Path, clock: Clock) -> None:
    store_run(path, clock)
    clock.now -= 10 * WINDOW_SECONDS
    assert StepFiling(clock).step_of("r", "train", RunHistory(path)) == 0


def test_a_busy_file_is_no_obstacle(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(RunHistory, "step_origin", busy)
    filing = StepFiling(clock)
    assert filing.step_of("r", "train", RunHistory(path)) == 0
    clock.now += WINDOW_SECONDS
    assert filing.step_of("r", "train", RunHistory(path)) == 1


def test_a_forgotten_run_begins_anew(path: Path, clock: Clock) -> None:
    filing = StepFiling(clock)
    name(filing, 7)
    name(filing, 5, "eval")
    name(filing, 6, run="other")
    filing.forget("r")
    assert filing.last("other", "train") == 6
    assert filing.last("r", "eval") is None
    assert filing.step_of("r", "train", RunHistory(path)) == 0


def test_a_run_is_new_until_it_is_stored_and_again_once_it_is_removed(clock: Clock) -> None:
    runs = NewRuns(clock)
    runs.add("r")
    assert runs.seen() == {"r": 1_000.0}
    runs.store({"r"})
    runs.add("r")
    assert runs.seen() == {}
    runs.remove("r")
    runs.add("r")
    assert list(runs.seen()) == ["r"]


def test_new_runs_are_bounded_in_time_and_number(clock: Clock) -> None:
    runs = NewRuns(clock)
    for number in range(MAX_NEW_RUNS + 5):
        runs.add(f"r{number}")
    assert len(runs.seen()) == MAX_NEW_RUNS
    clock.now += NEW_SECONDS
    assert runs.seen() == {}


def test_a_run_that_expires_while_new_runs_are_listed_is_no_error() -> None:
    times = iter((0.0, 0.0, 1.0, 1.0, NEW_SECONDS / 2))
    runs = NewRuns(lambda: next(times, 2 * NEW_SECONDS))
    runs.add("a")
    runs.add("b")
    assert runs.seen() == {"a": 0.0, "b": 1.0}
    assert runs.seen() == {}
