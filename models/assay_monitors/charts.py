"""What is drawn of a run: its streams in columns of steps, and when each rule fired."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from assay_monitors.distribution import Distribution, distribution
from assay_monitors.extents import Extent
from assay_monitors.health import DEFAULT_RULES
from assay_monitors.history import TRAINER, RunHistory, Stream
from assay_monitors.moments import Moments
from assay_monitors.rules.finding import Finding, Rule, Severity
from assay_monitors.sketch import Sketch
from assay_monitors.summaries import SCORE, Point, Summary

COLUMNS = 120
EPISODES = 200
GROUPS = 5
Numbers = list[float | None]


@dataclass(frozen=True, slots=True)
class Lines:
    """A measure by column: mean, standard deviation, tenth, fiftieth and ninetieth percentile; null
    where nothing was seen.
    """

    mean: Numbers
    std: Numbers
    p10: Numbers
    p50: Numbers
    p90: Numbers


@dataclass(frozen=True, slots=True)
class Columns:
    """What was seen, by column. `first` and `last` are the steps that a column holds; `nulls`,
    `truncated`, `invalid` count items, `constant_groups` those of `groups` that do not vary on any
    channel; `characters` is the response's median length; `channels` and `telemetry` are means.
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


@dataclass(frozen=True, slots=True)
class Episode:
    """A rule that fired without a break, from `since_step` to `until_step` (null: it still does).

    `severity` is the worst it was, `critical_step` the first at which it was critical; `value`,
    `threshold`, `about` and `evidence` are those of the step at which it began.
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
    cannot_tell: str


@dataclass(frozen=True, slots=True)
class GroupScores:
    """How far a group's scores lie apart. `group` is a digest of the name it was given."""

    group: str
    items: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Extremes:
    """Of a sample of the groups of one step, those whose best answer scored lowest, and those whose
    worst answer scored highest.
    """

    step: int
    sampled: int
    worst: list[GroupScores]
    best: list[GroupScores]


@dataclass(frozen=True, slots=True)
class StreamChart:
    """One model's scores in one split, drawn; without both, what the trainer told. `left_off` says
    how many of the oldest episodes are not among `episodes`.
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
    """A run, drawn. It was seen last at `last_seen`, in seconds since the epoch."""

    run: str
    last_seen: float
    streams: list[StreamChart]


class Column(NamedTuple):
    """Neighbouring steps, added up."""

    first: int
    last: int
    summary: Summary


def run_chart(
    history: RunHistory,
    run: str,
    model: str | None = None,
    split: str | None = None,
    most: int = COLUMNS,
    rules: Sequence[Rule] = DEFAULT_RULES,
) -> RunChart | None:
    """All streams of the run, or those of a model or a split, in `most` columns at most; None if
    nothing is known of the run.
    """
    found = next((one for one in history.runs() if one.run == run), None)
    if found is None:
        return None
    streams = [
        _chart(stream, history.series(run, stream), most, rules)
        for stream in history.streams(run) or [TRAINER]
        if model in (None, stream.model) and split in (None, stream.split)
    ]
    return RunChart(run, found.last_seen, streams)


def pooled_columns(series: Sequence[Point], most: int) -> list[Column]:
    """Neighbouring steps added up, the same number to each column but the last."""
    size = -(-len(series) // most) or 1
    parts = [series[start : start + size] for start in range(0, len(series), size)]
    return [Column(part[0].step, part[-1].step, _added(part)) for part in parts]


def episodes(series: Sequence[Point], rules: Sequence[Rule] = DEFAULT_RULES) -> list[Episode]:
    """When each rule fired, by rising step; points by rising step."""
    found = [one for rule in rules for one in _episodes(rule, series)] if series else []
    return sorted(found, key=lambda one: (one.since_step, one.rule))


def extremes(point: Point) -> Extremes | None:
    """The worst and the best groups of two scored items or more; None where there are none."""
    groups = [
        _group_scores(digest, extent)
        for digest, extent in sorted(point.summary.groups.extents.items())
        if extent.count > 1 and SCORE in extent.bounds
    ]
    if not groups:
        return None
    most = min(GROUPS, max(1, len(groups) // 2))
    worst = sorted(groups, key=lambda one: (one.high, one.low))[:most]
    best = sorted(groups, key=lambda one: (-one.low, -one.high))[:most]
    return Extremes(point.step, len(groups), worst, best)


def _chart(
    stream: Stream, series: Sequence[Point], most: int, rules: Sequence[Rule]
) -> StreamChart:
    columns = pooled_columns(series, most)
    fired = episodes(series, rules)
    seen = (found for point in reversed(series) if (found := extremes(point)) is not None)
    return StreamChart(
        model=stream.model or None,
        split=stream.split or None,
        columns=_columns(columns),
        distribution=distribution([column.summary for column in columns]),
        episodes=fired[-EPISODES:],
        left_off=max(0, len(fired) - EPISODES),
        groups=next(seen, None),
    )


def _added(part: Sequence[Point]) -> Summary:
    if len(part) == 1:
        return part[0].summary
    whole = Summary()
    for point in part:
        whole.merge(point.summary)
    return whole


def _columns(columns: Sequence[Column]) -> Columns:
    seen = [column.summary for column in columns]
    groups = [summary.groups.degenerate(0.0) for summary in seen]
    return Columns(
        first=[column.first for column in columns],
        last=[column.last for column in columns],
        items=[summary.items for summary in seen],
        nulls=[summary.nulls for summary in seen],
        truncated=[summary.truncated for summary in seen],
        invalid=[summary.invalid for summary in seen],
        groups=[real for _, real in groups],
        constant_groups=[constant for constant, _ in groups],
        score=_lines(seen),
        characters=_quantiles([summary.characters for summary in seen], 0.5),
        channels=_means(seen, lambda summary: summary.channels),
        telemetry=_means(seen, lambda summary: summary.telemetry),
    )


def _lines(seen: Sequence[Summary]) -> Lines:
    scores = [summary.scores for summary in seen]
    return Lines(
        mean=[summary.score.mean for summary in seen],
        std=[summary.score.std for summary in seen],
        p10=_quantiles(scores, 0.1),
        p50=_quantiles(scores, 0.5),
        p90=_quantiles(scores, 0.9),
    )


def _quantiles(sketches: Sequence[Sketch], share: float) -> Numbers:
    return [sketch.quantile(share) for sketch in sketches]


def _means(
    seen: Sequence[Summary], named: Callable[[Summary], dict[str, Moments]]
) -> dict[str, Numbers]:
    names = sorted({name for summary in seen for name in named(summary)})
    return {
        name: [named(summary)[name].mean if name in named(summary) else None for summary in seen]
        for name in names
    }


def _episodes(rule: Rule, series: Sequence[Point]) -> Iterator[Episode]:
    pairs = list(zip(series, rule.findings(series), strict=True))
    for fires, part in groupby(pairs, key=lambda pair: pair[1] is not None):
        if fires:
            answers = [(point.step, found) for point, found in part if found is not None]
            yield _episode(rule, answers, series[-1].step)


def _episode(rule: Rule, answers: Sequence[tuple[int, Finding]], latest: int) -> Episode:
    (since, first), (until, _) = answers[0], answers[-1]
    critical = next((step for step, found in answers if found.severity == "critical"), None)
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
        cannot_tell=rule.cannot_tell,
    )


def _group_scores(digest: str, extent: Extent) -> GroupScores:
    low, high = extent.bounds[SCORE]
    return GroupScores(digest, extent.count, low, high)
