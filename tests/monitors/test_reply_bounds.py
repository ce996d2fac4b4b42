"""Replies about a run are bounded, say so, and the rest can be asked for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import assay_monitors.charts
import assay_monitors.reports
import assay_monitors.step_reports
from assay_monitors.changes import Changes
from assay_monitors.charts import run_chart
from assay_monitors.gold import GoldPoint
from assay_monitors.history import TRAINER_STREAM, RunHistory, Stream
from assay_monitors.observations import Observation, Window
from assay_monitors.reports import run_health
from assay_monitors.step_reports import run_series
from assay_monitors.store import RunStore
from assay_monitors.summaries import Summary, summarise

from .stores import changes_of, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    store = open_store(tmp_path / "runs.db")
    yield store
    store.close()


@pytest.fixture
def history(store: RunStore, tmp_path: Path) -> RunHistory:
    return RunHistory(tmp_path / "runs.db")


def test_a_long_series_is_cut_and_continues_with_since(
    store: RunStore, history: RunHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay_monitors.step_reports, "MAX_VALUES", 260)
    for split in ("a", "b"):
        for step in range(12):
            store.write(changes_of("r", step, stream=Stream("code@1", split)))
    seen: list[tuple[str | None, int]] = []
    for split in ("a", "b"):
        since, replies, truncated = 0, 0, True
        while truncated:
            series = run_series(history, "r", model="code@1", split=split, since=since)
            assert series is not None
            (stream,) = series.streams
            seen += [(stream.split, step.step) for step in stream.steps]
            since, truncated, replies = stream.steps[-1].step + 1, series.truncated, replies + 1
        assert replies == 2
    assert seen == [(split, step) for split in ("a", "b") for step in range(12)]
    whole = run_series(history, "r", model=None, split=None, since=0)
    assert whole is not None
    assert (len(whole.streams), whole.truncated) == (1, True)


def test_a_chart_of_many_streams_is_cut_and_a_split_can_be_asked_for(
    store: RunStore, history: RunHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay_monitors.charts, "MAX_COLUMNS", 30)
    for number in range(4):
        store.write(changes_of("r", 1, stream=Stream("code@1", f"s{number}")))
    chart = run_chart(history, "r", max_columns=10)
    assert chart is not None
    assert ([stream.split for stream in chart.streams], chart.truncated) == (
        ["s0", "s1", "s2"],
        True,
    )
    rest = run_chart(history, "r", split="s3", max_columns=10)
    assert rest is not None
    assert ([stream.split for stream in rest.streams], rest.truncated) == (["s3"], False)


def test_the_health_of_much_gold_is_cut_and_a_source_can_be_asked_for(
    store: RunStore, history: RunHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay_monitors.reports, "MAX_GOLD_POINTS", 8)
    points = {
        ("r", source, step): GoldPoint(step, gradient_norm=1.0)
        for source in ("judge", "tests")
        for step in range(8)
    }
    store.write(Changes(gold=points))
    health = run_health(history, "r")
    assert health is not None
    shown = {gold.source: [point.step for point in gold.points] for gold in health.gold}
    assert (shown, health.truncated) == ({"judge": [4, 5, 6, 7], "tests": [4, 5, 6, 7]}, True)
    alone = run_health(history, "r", source="tests")
    assert alone is not None
    (gold,) = alone.gold
    assert ([point.step for point in gold.points], alone.truncated) == (list(range(8)), False)


def test_names_that_change_with_each_step_are_bounded_in_all_replies(
    store: RunStore, history: RunHistory
) -> None:
    windows: dict[Window, Summary] = {}
    for step in range(40):
        telemetry = Summary()
        telemetry.add_telemetry({f"t{step:02}{number}": 1.0 for number in range(9)})
        windows[Window("r", *TRAINER_STREAM, step)] = telemetry
        channels: dict[str, float | None] = {f"c{step:02}{number}": 1.0 for number in range(8)}
        windows[Window("r", "code@1", "train", step)] = summarise([Observation(0.5, channels)] * 2)
    store.write(Changes(windows))
    chart, health = run_chart(history, "r"), run_health(history, "r")
    assert chart is not None
    assert health is not None
    (stream,) = chart.streams
    assert list(stream.columns.channels)[-1] == "c077"
    assert (len(stream.columns.channels), len(stream.columns.telemetry)) == (64, 64)
    assert len(health.streams[0].channels) <= 65
