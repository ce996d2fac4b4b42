"""What is told of a run to whoever asks: its streams, their health, their steps, and its gold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from assay_monitors.gold import GoldPoint
from assay_monitors.health import DEFAULT_RULES, ChannelHealth, Status, channels, judged
from assay_monitors.history import TRAINER, Run, RunHistory, Stream
from assay_monitors.intervals import Estimate
from assay_monitors.moments import Moments
from assay_monitors.rules.finding import Finding, Rule, Severity
from assay_monitors.sketch import Sketch
from assay_monitors.summaries import Point, Summary
from assay_monitors.trigger import Advice, GoldTrigger

RANK: dict[Status, int] = {"ok": 0, "warn": 1, "critical": 2}
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run that is kept: when it was first and last seen, in seconds since the epoch."""

    run: str
    first_seen: float
    last_seen: float


@dataclass(frozen=True, slots=True)
class StreamName:
    """What has a series of its own."""

    model: str
    split: str


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run, what it was scored with, and the gold sources it was measured against."""

    run: str
    first_seen: float
    last_seen: float
    streams: list[StreamName]
    gold_sources: list[str]


@dataclass(frozen=True, slots=True)
class RuleState:
    """A rule at a stream's latest step. Without a severity it is silent: nothing passed a
    threshold, or too little was seen to judge.

    `since_step` is the step since which it has fired without a break; `value` was measured and
    passed `threshold`, for what it is `about` (channels, labels, scripts), resting on `evidence`;
    `thresholds` are the rule's own.
    """

    rule: str
    severity: Severity | None
    since_step: int | None
    value: float | None
    threshold: float | None
    about: list[str]
    evidence: dict[str, float]
    thresholds: dict[str, float | str]
    cannot_tell: str


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """The health of one model's scores in one split, at the latest `step`. Of a run that nothing
    was scored for, the health of what its trainer told, without a model and a split.
    """

    model: str | None
    split: str | None
    step: int
    status: Status
    rules: list[RuleState]
    channels: dict[str, ChannelHealth]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, its 95 % interval, and from how many values it was estimated."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class GoldMeasure:
    """What was measured at a step; null is what was not. See `GoldPoint`."""

    step: int
    proxy: Interval | None
    gold: Interval | None
    accuracy: Interval | None
    loss: Interval | None
    rank: Interval | None
    gradient_norm: float | None


@dataclass(frozen=True, slots=True)
class GoldHealth:
    """A gold source's measurements by rising step, and its advice; null while nothing is wrong."""

    source: str
    points: list[GoldMeasure]
    advice: Advice | None


@dataclass(frozen=True, slots=True)
class RunHealth:
    """The health of a run. `status` is the worst of its streams'; a gold source that advises to
    stop is critical, any other advice warns.
    """

    run: str
    status: Status
    streams: list[StreamHealth]
    gold: list[GoldHealth]

    def severities(self) -> dict[str, int]:
        """By rule, over all streams: 0 for silence, 1 for a warning, 2 for what is critical."""
        found: dict[str, int] = {}
        for state in (rule for stream in self.streams for rule in stream.rules):
            found[state.rule] = max(found.get(state.rule, 0), RANK[state.severity or "ok"])
        return found


@dataclass(frozen=True, slots=True)
class Spread:
    """How many values there were, their mean, standard deviation and extremes."""

    count: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class StepReport:
    """What was seen in a step. `quantiles` are tenth, median and ninetieth percentile, right to
    2 %; `groups` of two scored items or more in a sample, and how many do not vary on any channel;
    `telemetry` the means of what the trainer told.
    """

    step: int
    items: int
    nulls: int
    truncated: int
    invalid: int
    score: Spread
    score_quantiles: list[float]
    channels: dict[str, Spread]
    character_quantiles: list[float]
    token_quantiles: list[float]
    length_score: float | None
    labels: dict[str, int]
    flags: dict[str, int]
    sources: dict[str, int]
    scripts: dict[str, int]
    calls: dict[str, int]
    groups: int
    groups_without_variance: int
    telemetry: dict[str, float]


@dataclass(frozen=True, slots=True)
class StreamSeries:
    """The steps of a stream, rising; streams as in `StreamHealth`."""

    model: str | None
    split: str | None
    steps: list[StepReport]


def kept_runs(history: RunHistory) -> list[KeptRun]:
    """All runs, the one that was seen last first."""
    return [KeptRun(*run) for run in history.runs()]


def run_report(history: RunHistory, run: str) -> RunReport | None:
    """What is known of the run; None if nothing is."""
    found = _find(history, run)
    if found is None:
        return None
    streams = [StreamName(*stream) for stream in history.streams(run)]
    return RunReport(*found, streams, list(history.gold(run)))


def run_health(
    history: RunHistory, run: str, rules: Sequence[Rule] = DEFAULT_RULES
) -> RunHealth | None:
    """The run's health by the rules; None if nothing is known of it."""
    if _find(history, run) is None:
        return None
    streams = [
        _stream_health(stream, series, rules)
        for stream in _streams(history, run)
        if (series := history.series(run, stream))
    ]
    gold = [gold_health(source, points) for source, points in history.gold(run).items()]
    told = [one.status for one in streams] + [_gold_status(one.advice) for one in gold]
    return RunHealth(run, worst(told), streams, gold)


def run_series(
    history: RunHistory, run: str, model: str | None, split: str | None, since: int
) -> list[StreamSeries] | None:
    """The steps from `since` on of all streams, or those of a model or a split; None if nothing is
    known of the run.
    """
    if _find(history, run) is None:
        return None
    return [
        StreamSeries(
            *_pair(stream),
            [_step_report(point) for point in history.series(run, stream) if point.step >= since],
        )
        for stream in _streams(history, run)
        if model in (None, stream.model) and split in (None, stream.split)
    ]


def gold_health(source: str, points: Sequence[GoldPoint]) -> GoldHealth:
    """A source's measurements, by rising step, and what they advise."""
    return GoldHealth(source, list(map(gold_measure, points)), GoldTrigger().advise(points))


def gold_measure(point: GoldPoint) -> GoldMeasure:
    """A measurement, each of its numbers with names."""
    return GoldMeasure(
        step=point.step,
        proxy=_interval(point.proxy),
        gold=_interval(point.gold),
        accuracy=_interval(point.accuracy),
        loss=_interval(point.loss),
        rank=_interval(point.rank),
        gradient_norm=point.gradient_norm,
    )


def worst(statuses: Sequence[Status]) -> Status:
    """The worst of them; `ok` of none."""
    return max(statuses, key=RANK.__getitem__, default="ok")


def _find(history: RunHistory, run: str) -> Run | None:
    return next((one for one in history.runs() if one.run == run), None)


def _streams(history: RunHistory, run: str) -> list[Stream]:
    return history.streams(run) or [TRAINER]


def _pair(stream: Stream) -> tuple[str | None, str | None]:
    return stream.model or None, stream.split or None


def _stream_health(stream: Stream, series: Sequence[Point], rules: Sequence[Rule]) -> StreamHealth:
    states = [_state(*answer) for answer in judged(series, rules)]
    severities: list[Status] = [one.severity for one in states if one.severity is not None]
    return StreamHealth(
        *_pair(stream), series[-1].step, worst(severities), states, channels(series)
    )


def _state(rule: Rule, since: int, finding: Finding | None) -> RuleState:
    fires = finding is not None
    return RuleState(
        rule=rule.id,
        severity=finding.severity if finding else None,
        since_step=since if fires else None,
        value=finding.value if finding else None,
        threshold=finding.threshold if finding else None,
        about=list(finding.about) if finding else [],
        evidence=dict(finding.evidence) if finding else {},
        thresholds=_thresholds(rule),
        cannot_tell=rule.cannot_tell,
    )


def _thresholds(rule: Any) -> dict[str, float | str]:
    return {one.name: getattr(rule, one.name) for one in fields(rule)}


def _gold_status(advice: Advice | None) -> Status:
    if advice is None:
        return "ok"
    return "critical" if advice.action == "stop" else "warn"


def _interval(estimate: Estimate | None) -> Interval | None:
    return None if estimate is None else Interval(*estimate)


def _step_report(point: Point) -> StepReport:
    step, seen = point
    constant, groups = seen.groups.degenerate(0.0)
    return StepReport(
        step=step,
        items=seen.items,
        nulls=seen.nulls,
        truncated=seen.truncated,
        invalid=seen.invalid,
        score=_spread(seen.score),
        score_quantiles=_quantiles(seen.scores),
        channels=_spreads(seen.channels),
        character_quantiles=_quantiles(seen.characters),
        token_quantiles=_quantiles(seen.tokens),
        length_score=seen.length_score.correlation,
        labels=seen.labels,
        flags=seen.flags,
        sources=seen.sources,
        scripts=seen.scripts,
        calls=seen.calls,
        groups=groups,
        groups_without_variance=constant,
        telemetry=_means(seen),
    )


def _spreads(moments: Mapping[str, Moments]) -> dict[str, Spread]:
    return {name: _spread(one) for name, one in moments.items()}


def _spread(moments: Moments) -> Spread:
    if not moments.count:
        return Spread(0, None, None, None, None)
    return Spread(moments.count, moments.mean, moments.std, moments.low, moments.high)


def _quantiles(sketch: Sketch) -> list[float]:
    values = [sketch.quantile(share) for share in QUANTILES]
    return [value for value in values if value is not None]


def _means(seen: Summary) -> dict[str, float]:
    means = {name: moments.mean for name, moments in seen.telemetry.items()}
    return {name: mean for name, mean in means.items() if mean is not None}
