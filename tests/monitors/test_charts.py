"""What is drawn of a run: columns, how scores spread, when rules fired, best and worst groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_monitors.charts import (
    EPISODES,
    Episode,
    Extremes,
    GroupScores,
    episodes,
    extremes,
    pooled_columns,
    run_chart,
)
from assay_monitors.distribution import ROWS, distribution
from assay_monitors.history import RunHistory
from assay_monitors.observations import Observation, Window, group_digest
from assay_monitors.retention import Retention
from assay_monitors.rules.finding import Finding, Severity
from assay_monitors.store import Changes, RunStore
from assay_monitors.summaries import Point, Summary, summarise

Script = tuple[Severity | None, ...]


@dataclass(frozen=True)
class Scripted:
    """A rule that finds what it was told to."""

    id: ClassVar[str] = "scripted"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "anything"

    script: Script

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        return [
            one and Finding(one, float(place), 0.5, ("x",), {"place": place})
            for place, one in enumerate(self.script)
        ]


def told(*scores: float | None, group: str | None = None) -> Summary:
    return summarise(Observation(score, {"whole": score}, group=group) for score in scores)


def points(count: int) -> list[Point]:
    return [Point(step * 10, told(float(step))) for step in range(count)]


@pytest.mark.parametrize(
    ("steps", "most", "sizes"),
    [(0, 4, []), (3, 4, [1, 1, 1]), (8, 4, [2, 2, 2, 2]), (9, 4, [3, 3, 3]), (5, 1, [5])],
)
def test_steps_are_pooled_into_columns_and_nothing_is_lost(
    steps: int, most: int, sizes: list[int]
) -> None:
    columns = pooled_columns(points(steps), most)
    assert [column.summary.items for column in columns] == sizes
    assert len(columns) <= most
    if columns:
        assert (columns[0].first, columns[-1].last) == (0, (steps - 1) * 10)


finite = st.floats(-1e6, 1e6)


@given(st.lists(st.lists(finite, max_size=6), min_size=1, max_size=5))
def test_the_shares_of_a_column_are_all_of_its_scores(columns: list[list[float]]) -> None:
    spread = distribution([told(*scores) for scores in columns])
    if not any(columns):
        assert spread is None
        return
    assert spread is not None
    assert spread.edges == sorted(spread.edges)
    assert len(spread.edges) == ROWS + 1
    for scores, shares in zip(columns, spread.shares, strict=True):
        assert len(shares) == (ROWS if scores else 0)
        assert sum(shares) == pytest.approx(1.0 if scores else 0.0, abs=ROWS * 1e-4)
        assert all(share >= 0 for share in shares)


def test_a_score_lies_in_its_row_and_an_outlier_in_the_outermost() -> None:
    many = [float(number % 11) for number in range(11_000)]
    spread = distribution([told(*many), told(5.0), told(1e6), told(-1e6)])
    assert spread is not None
    assert (spread.edges[0], spread.edges[-1]) == pytest.approx((0.0, 10.0), rel=0.03)
    _, middle, above, below = spread.shares
    inside = [row for row, share in enumerate(middle) if share]
    assert all(spread.edges[row] <= 5.2 and spread.edges[row + 1] >= 4.8 for row in inside)
    assert (above[-1], below[0]) == (1.0, 1.0)


def test_scores_that_are_all_the_same_are_one_row() -> None:
    spread = distribution([told(2.0, 2.0), told()])
    assert spread is not None
    assert spread.edges[0] < 2.0 < spread.edges[-1]
    assert sorted(spread.shares[0])[-2:] == [0.0, 1.0]
    assert spread.shares[1] == []


EPISODE_SCRIPTS: list[tuple[Script, list[tuple[str, int, int | None, int | None]]]] = [
    ((None, None, None, None), []),
    (("warn", "warn", None, None), [("warn", 0, None, 10)]),
    ((None, "warn", "critical", "warn"), [("critical", 10, 20, None)]),
    (("critical", None, None, "warn"), [("critical", 0, 0, 0), ("warn", 30, None, None)]),
]


@pytest.mark.parametrize(("script", "expected"), EPISODE_SCRIPTS)
def test_an_episode_lasts_from_silence_to_silence(
    script: Script, expected: list[tuple[str, int, int | None, int | None]]
) -> None:
    found = episodes(points(4), [Scripted(script)])
    told = [(one.severity, one.since_step, one.critical_step, one.until_step) for one in found]
    assert told == expected


def test_an_episode_tells_what_it_began_with() -> None:
    (found,) = episodes(points(3), [Scripted((None, "warn", "critical"))])
    assert found == Episode(
        rule="scripted",
        severity="critical",
        since_step=10,
        critical_step=20,
        until_step=None,
        value=1.0,
        threshold=0.5,
        about=["x"],
        evidence={"place": 1},
        cannot_tell="anything",
    )


def test_groups_are_told_by_digest_and_by_how_far_they_lie_apart() -> None:
    summary = Summary()
    for name, scores in {"a": (0.0, 1.0), "b": (3.0, 4.0), "c": (1.0, 2.0), "d": (9.0,)}.items():
        summary.merge(told(*scores, group=name))
    worst = GroupScores(group_digest("a"), 2, 0.0, 1.0)
    best = GroupScores(group_digest("b"), 2, 3.0, 4.0)
    assert extremes(Point(7, summary)) == Extremes(7, 3, [worst], [best])
    assert extremes(Point(8, told(1.0, 2.0))) is None


@pytest.fixture
def history(tmp_path: Path) -> RunHistory:
    path = tmp_path / "runs.db"
    store = RunStore(path, Retention(), lambda: 5.0)
    changes = Changes()
    for step in range(2 * EPISODES + 2):
        # Every other step fails as a whole, after enough have not.
        scores = [None] * 64 if step % 2 else [1.0, 2.0] * 32
        changes.windows[Window("r", "m@1", "train", step)] = told(*scores, group="g")
    changes.windows[Window("r", "m@1", "eval", 0)] = told(1.0)
    kl = Summary()
    kl.add_telemetry({"kl": 0.5})
    changes.windows[Window("r", "", "", 1)] = kl
    changes.windows[Window("told", "", "", 1)] = kl
    store.write(changes)
    store.close()
    return RunHistory(path)


def test_a_run_is_drawn_stream_by_stream(history: RunHistory) -> None:
    chart = run_chart(history, "r", most=100)
    assert chart is not None
    assert (chart.run, chart.last_seen) == ("r", 5.0)
    assert [(one.model, one.split) for one in chart.streams] == [("m@1", "eval"), ("m@1", "train")]
    train = chart.streams[1]
    assert len(train.columns.last) <= 100
    assert sum(train.columns.items) == 64 * (2 * EPISODES + 2)
    assert sum(train.columns.nulls) == 64 * (EPISODES + 1)
    assert train.columns.channels.keys() == {"whole"}
    assert train.columns.telemetry["kl"][0] == 0.5
    assert train.groups is not None
    assert train.groups.step == 2 * EPISODES


def test_old_episodes_are_left_off_and_counted(history: RunHistory) -> None:
    every_other = Scripted(("warn", None) * (EPISODES + 1))
    chart = run_chart(history, "r", "m@1", "train", rules=[every_other])
    assert chart is not None
    (train,) = chart.streams
    assert [one.since_step for one in train.episodes] == list(range(2, 2 * EPISODES + 2, 2))
    assert train.left_off == 1


def test_what_only_the_trainer_told_is_drawn_without_scores(history: RunHistory) -> None:
    chart = run_chart(history, "told")
    assert chart is not None
    (stream,) = chart.streams
    assert (stream.model, stream.split, stream.distribution, stream.groups) == (None,) * 4
    assert stream.columns.telemetry == {"kl": [0.5]}
    assert stream.columns.score.mean == [None]


def test_an_unknown_run_and_an_unknown_stream(history: RunHistory) -> None:
    assert run_chart(history, "nobody") is None
    chart = run_chart(history, "r", model="other@1")
    assert chart is not None
    assert chart.streams == []
