"""Chart data of a run: columns, distributions, episodes of rules, best and worst groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_monitors.changes import Changes
from assay_monitors.charts import (
    MAX_EPISODES,
    Episode,
    Extremes,
    GroupScores,
    find_episodes,
    find_extremes,
    pool_columns,
    run_chart,
)
from assay_monitors.distribution import ROWS, distribution
from assay_monitors.history import RunHistory
from assay_monitors.observations import Observation, Window, group_digest
from assay_monitors.retention import Retention
from assay_monitors.rules.base import Finding, Progress, Severity
from assay_monitors.store import RunStore
from assay_monitors.summaries import Point, Summary, summarise

Script = tuple[Severity | None, ...]


@dataclass(frozen=True)
class ScriptedRule:
    """A rule with scripted findings."""

    id: ClassVar[str] = "scripted"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "anything"

    script: Script

    def progress(self, series: Sequence[Point]) -> Progress:
        return Progress(len(series), 1, "steps")

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        return [
            severity
            and Finding(
                severity,
                value=float(place),
                threshold=0.5,
                about=("x",),
                evidence={"place": place},
            )
            for place, severity in enumerate(self.script)
        ]


def scored(*scores: float | None, group: str | None = None) -> Summary:
    return summarise(Observation(score, {"whole": score}, group=group) for score in scores)


def points(count: int) -> list[Point]:
    return [Point(step * 10, scored(float(step))) for step in range(count)]


@pytest.mark.parametrize(
    ("steps", "max_columns", "sizes"),
    [(0, 4, []), (3, 4, [1, 1, 1]), (8, 4, [2, 2, 2, 2]), (9, 4, [3, 3, 3]), (5, 1, [5])],
)
def test_steps_are_pooled_into_columns_without_loss(
    steps: int, max_columns: int, sizes: list[int]
) -> None:
    columns = pool_columns(points(steps), max_columns)
    assert [column.summary.items for column in columns] == sizes
    assert len(columns) <= max_columns
    if columns:
        assert (columns[0].first, columns[-1].last) == (0, (steps - 1) * 10)


finite = st.floats(-1e6, 1e6)


@given(st.lists(st.lists(finite, max_size=6), min_size=1, max_size=5))
def test_the_shares_of_a_column_sum_to_one(columns: list[list[float]]) -> None:
    spread = distribution([scored(*scores) for scores in columns])
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


def test_a_score_counts_in_its_row_and_an_outlier_in_the_outermost() -> None:
    many = [float(number % 11) for number in range(11_000)]
    spread = distribution([scored(*many), scored(5.0), scored(1e6), scored(-1e6)])
    assert spread is not None
    assert (spread.edges[0], spread.edges[-1]) == pytest.approx((0.0, 10.0), rel=0.03)
    _, middle, above, below = spread.shares
    inside = [row for row, share in enumerate(middle) if share]
    assert all(spread.edges[row] <= 5.2 and spread.edges[row + 1] >= 4.8 for row in inside)
    assert (above[-1], below[0]) == (1.0, 1.0)


def test_equal_scores_fill_one_row() -> None:
    spread = distribution([scored(2.0, 2.0), scored()])
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
def test_an_episode_lasts_as_long_as_the_rule_fires(
    script: Script, expected: list[tuple[str, int, int | None, int | None]]
) -> None:
    episodes = find_episodes(points(4), [ScriptedRule(script)])
    assert [
        (episode.severity, episode.since_step, episode.critical_step, episode.until_step)
        for episode in episodes
    ] == expected


def test_an_episode_has_the_values_of_its_first_step() -> None:
    (episode,) = find_episodes(points(3), [ScriptedRule((None, "warn", "critical"))])
    assert episode == Episode(
        rule="scripted",
        severity="critical",
        since_step=10,
        critical_step=20,
        until_step=None,
        value=1.0,
        threshold=0.5,
        about=["x"],
        evidence={"place": 1},
        limits="anything",
    )


def test_extremes_are_groups_by_digest_with_their_score_range() -> None:
    summary = Summary()
    for name, scores in {"a": (0.0, 1.0), "b": (3.0, 4.0), "c": (1.0, 2.0), "d": (9.0,)}.items():
        summary.merge(scored(*scores, group=name))
    worst = GroupScores(group_digest("a"), 2, 0.0, 1.0)
    best = GroupScores(group_digest("b"), 2, 3.0, 4.0)
    assert find_extremes(Point(7, summary)) == Extremes(7, 3, [worst], [best])
    assert find_extremes(Point(8, scored(1.0, 2.0))) is None


@pytest.fixture
def history(tmp_path: Path) -> RunHistory:
    path = tmp_path / "runs.db"
    store = RunStore(path, Retention(), lambda: 5.0)
    changes = Changes()
    for step in range(2 * MAX_EPISODES + 2):
        # Every other step has no score at all.
        scores = [None] * 64 if step % 2 else [1.0, 2.0] * 32
        changes.windows[Window("r", "m@1", "train", step)] = scored(*scores, group="g")
    changes.windows[Window("r", "m@1", "eval", 0)] = scored(1.0)
    kl = Summary()
    kl.add_telemetry({"kl": 0.5})
    changes.windows[Window("r", "", "", 1)] = kl
    changes.windows[Window("telemetry", "", "", 1)] = kl
    store.write(changes)
    store.close()
    return RunHistory(path)


def test_a_run_has_one_chart_for_each_stream(history: RunHistory) -> None:
    chart = run_chart(history, "r", max_columns=100)
    assert chart is not None
    assert (chart.run, chart.last_seen) == ("r", 5.0)
    assert [(stream.model, stream.split) for stream in chart.streams] == [
        ("m@1", "eval"),
        ("m@1", "train"),
    ]
    train = chart.streams[1]
    assert len(train.columns.last) <= 100
    assert sum(train.columns.items) == 64 * (2 * MAX_EPISODES + 2)
    assert sum(train.columns.nulls) == 64 * (MAX_EPISODES + 1)
    assert train.columns.channels.keys() == {"whole"}
    assert train.columns.telemetry["kl"][0] == 0.5
    assert train.groups is not None
    assert train.groups.step == 2 * MAX_EPISODES


def test_old_episodes_are_left_off_and_counted(history: RunHistory) -> None:
    every_other = ScriptedRule(("warn", None) * (MAX_EPISODES + 1))
    chart = run_chart(history, "r", model="m@1", split="train", rules=[every_other])
    assert chart is not None
    (train,) = chart.streams
    assert [episode.since_step for episode in train.episodes] == list(
        range(2, 2 * MAX_EPISODES + 2, 2)
    )
    assert train.left_off == 1


def test_telemetry_alone_has_a_chart_without_scores(history: RunHistory) -> None:
    chart = run_chart(history, "telemetry")
    assert chart is not None
    (stream,) = chart.streams
    assert (stream.model, stream.split, stream.distribution, stream.groups) == (None,) * 4
    assert stream.columns.telemetry == {"kl": [0.5]}
    assert stream.columns.score.mean == [None]


def test_an_unknown_run_has_no_chart_and_an_unknown_model_no_streams(history: RunHistory) -> None:
    assert run_chart(history, "unknown") is None
    chart = run_chart(history, "r", model="other@1")
    assert chart is not None
    assert chart.streams == []
