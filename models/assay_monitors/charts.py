"""Chart data of a run: its streams in columns of steps, and when each rule fired."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from assay_monitors.distribution import Distribution, distribution
from assay_monitors.group_ranges import SCORE, GroupRange
from assay_monitors.health import DEFAULT_RULES
from assay_monitors.history import RunHistory, Stream
from assay_monitors.moments import Moments
from assay_monitors.reports import streams_of
from assay_monitors.rules.base import Finding, Rule, Severity
from assay_monitors.sketch import QuantileSketch
from assay_monitors.summaries import Point, Summary

DEFAULT_COLUMNS = 120
MAX_EPISODES = 200
MAX_GROUPS = 5
MAX_COLUMNS = 2_000
"""Columns of all charts of a reply."""
Numbers = list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A measure by column: mean, standard deviation, tenth, fiftieth and ninetieth percentile.

    Null where a column has no values.
    """

    mean: Numbers
    std: Numbers
    p10: Numbers
    p50: Numbers
    p90: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The measures of a stream, by column.

    `first` and `last` are the steps that a column holds; `nulls`, `truncated`, `invalid` count
    items, `constant_groups` those of `groups` that do not vary on any channel; `characters` is the
    response's median length; `channels` and `telemetry` are means.
    """

    first: list[int]
    last: list[int]
    items: list[int]
    nulls: list[int]
    truncated: list[int]
    invalid: list[int]
    groups: list[int]
    constant_groups: list[int]
    score: Lines
    characters: Numbers
    channels: dict[str, Numbers]
    telemetry: dict[str, Numbers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A rule that fired without a break, from `since_step` to `until_step` (null: it still does).

    `severity` is the worst in that time, `critical_step` the first step at which it was critical.
    `value`, `threshold`, `about` and `evidence` are those of the step at which it began, `limits`
    is what the rule cannot distinguish.
    """

    rule: str
    severity: Severity
    since_step: int
    critical_step: int | None
    until_step: int | None
    value: float
    threshold: float
    about: list[str]
    evidence: dict[str, float]
    limits: str


@dataclass(frozen=True, slots=True)
class GroupScores:
    """The range of a group's scores. `group` is the digest of the group's name."""

    group: str
    items: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Extremes:
    """The worst and best groups of a sample of the groups of one step.

    The worst are those whose best answer scored lowest, the best those whose worst answer scored
    highest.
    """

    step: int
    sampled: int
    worst: list[GroupScores]
    best: list[GroupScores]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChart:
    """The chart of one model's scores in one split; without both, of the trainer's telemetry.

    `left_off` is the number of the oldest episodes that are not among `episodes`.
    """

    model: str | None
    split: str | None
    columns: Columns
    distribution: Distribution | None
    episodes: list[Episode]
    left_off: int
    groups: Extremes | None


@dataclass(frozen=True, slots=True)
class RunChart:
    """The chart of a run, whose latest data came at `last_seen`, in seconds since the epoch.

    `truncated`: there are more streams, which `model` and `split` ask for. `damaged` rows cannot be
    read and are left out.
    """

    run: str
    last_seen: float
    streams: list[StreamChart]
    truncated: bool
    damaged: int


class Column(NamedTuple):
    """Neighbouring steps, merged."""

    first: int
    last: int
    summary: Summary


def run_chart(
    history: RunHistory,
    run: str,
    *,
    model: str | None = None,
    split: str | None = None,
    max_columns: int = DEFAULT_COLUMNS,
    rules: Sequence[Rule] = DEFAULT_RULES,
) -> RunChart | None:
    """Return the charts of all streams of the run, or of those of a model or a split.

    Returns:
        Charts of at most `max_columns` columns; None if the run is unknown.
    """
    known = history.find(run)
    if known is None:
        return None
    wanted = streams_of(history, run, model=model, split=split)
    shown = wanted[: max(1, MAX_COLUMNS // max_columns)]
    streams = [_chart(stream, history.series(run, stream), max_columns, rules) for stream in shown]
    truncated = len(shown) < len(wanted)
    return RunChart(run, known.last_seen, streams, truncated, history.damaged_rows(run))


def pool_columns(series: Sequence[Point], max_columns: int) -> list[Column]:
    """Merge neighbouring steps, the same number to each column but the last."""
    size = -(-len(series) // max_columns) or 1
    parts = [series[start : start + size] for start in range(0, len(series), size)]
    return [Column(part[0].step, part[-1].step, _merge(part)) for part in parts]


def find_episodes(series: Sequence[Point], rules: Sequence[Rule] = DEFAULT_RULES) -> list[Episode]:
    """Return the episodes of each rule, by rising step; points by rising step."""
    episodes = [episode for rule in rules for episode in _episodes(rule, series)] if series else []
    return sorted(episodes, key=lambda episode: (episode.since_step, episode.rule))


def find_extremes(point: Point) -> Extremes | None:
    """Return the worst and the best groups of two scored items or more; None if there are none."""
    groups = [
        _group_scores(digest, group)
        for digest, group in sorted(point.summary.groups.ranges.items())
        if group.count > 1 and SCORE in group.bounds
    ]
    if not groups:
        return None
    shown = min(MAX_GROUPS, max(1, len(groups) // 2))
    worst = sorted(groups, key=lambda group: (group.high, group.low))[:shown]
    best = sorted(groups, key=lambda group: (-group.low, -group.high))[:shown]
    return Extremes(point.step, len(groups), worst, best)


def _chart(
    stream: Stream, series: Sequence[Point], max_columns: int, rules: Sequence[Rule]
) -> StreamChart:
    columns = pool_columns(series, max_columns)
    episodes = find_episodes(series, rules)
    latest_first = map(find_extremes, reversed(series))
    return StreamChart(
        model=stream.model or None,
        split=stream.split or None,
        columns=_columns(columns),
        distribution=distribution([column.summary for column in columns]),
        episodes=episodes[-MAX_EPISODES:],
        left_off=max(0, len(episodes) - MAX_EPISODES),
        groups=next((found for found in latest_first if found is not None), None),
    )


def _merge(part: Sequence[Point]) -> Summary:
    if len(part) == 1:
        return part[0].summary
    whole = Summary()
    for point in part:
        whole.merge(point.summary)
    return whole


def _columns(columns: Sequence[Column]) -> Columns:
    summaries = [column.summary for column in columns]
    groups = [summary.groups.count_zero_variance(0.0) for summary in summaries]
    return Columns(
        first=[column.first for column in columns],
        last=[column.last for column in columns],
        items=[summary.items for summary in summaries],
        nulls=[summary.nulls for summary in summaries],
        truncated=[summary.truncated for summary in summaries],
        invalid=[summary.invalid for summary in summaries],
        groups=[total for _, total in groups],
        constant_groups=[constant for constant, _ in groups],
        score=_lines(summaries),
        characters=_quantiles([summary.characters for summary in summaries], 0.5),
        channels=_means(summaries, lambda summary: summary.channels),
        telemetry=_means(summaries, lambda summary: summary.telemetry),
    )


def _lines(summaries: Sequence[Summary]) -> Lines:
    scores = [summary.scores for summary in summaries]
    return Lines(
        mean=[summary.score.mean for summary in summaries],
        std=[summary.score.std for summary in summaries],
        p10=_quantiles(scores, 0.1),
        p50=_quantiles(scores, 0.5),
        p90=_quantiles(scores, 0.9),
    )


def _quantiles(sketches: Sequence[QuantileSketch], share: float) -> Numbers:
    return [sketch.quantile(share) for sketch in sketches]


def _means(
    summaries: Sequence[Summary], named: Callable[[Summary], dict[str, Moments]]
) -> dict[str, Numbers]:
    names = sorted({name for summary in summaries for name in named(summary)})
    return {
        name: [
            named(summary)[name].mean if name in named(summary) else None for summary in summaries
        ]
        for name in names
    }


def _episodes(rule: Rule, series: Sequence[Point]) -> Iterator[Episode]:
    pairs = list(zip(series, rule.findings(series), strict=True))
    for fires, part in groupby(pairs, key=lambda pair: pair[1] is not None):
        if fires:
            findings = [(point.step, finding) for point, finding in part if finding is not None]
            yield _episode(rule, findings, series[-1].step)


def _episode(rule: Rule, findings: Sequence[tuple[int, Finding]], latest: int) -> Episode:
    (since, first), (until, _) = findings[0], findings[-1]
    critical = next((step for step, finding in findings if finding.severity == "critical"), None)
    return Episode(
        rule=rule.id,
        severity="warn" if critical is None else "critical",
        since_step=since,
        critical_step=critical,
        until_step=None if until == latest else until,
        value=first.value,
        threshold=first.threshold,
        about=list(first.about),
        evidence=dict(first.evidence),
        limits=rule.limits,
    )


def _group_scores(digest: str, group: GroupRange) -> GroupScores:
    low, high = group.bounds[SCORE]
    return GroupScores(digest, group.count, low, high)
