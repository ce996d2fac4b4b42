"""Reports of a run, as the service returns them: streams, health, and gold."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from assay_monitors.advice import Advice, GoldAdvisor
from assay_monitors.gold import GoldPoint
from assay_monitors.health import (
    DEFAULT_RULES,
    ChannelHealth,
    Evaluation,
    State,
    Status,
    channel_health,
    evaluate_rules,
    overall_status,
)
from assay_monitors.history import TRAINER_STREAM, RunHistory, Stream
from assay_monitors.intervals import Estimate
from assay_monitors.observations import is_shadow
from assay_monitors.rules.base import Rule, Severity, Unit
from assay_monitors.summaries import Point

MAX_STREAMS = 64
"""Streams of a reply; a run may have as many."""
MAX_GOLD_POINTS = 2_000
"""Measurements of a reply; one source may have as many."""

RANK: dict[Status, int] = {"waiting": -1, "ok": 0, "warn": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run that is kept, when it was first and last seen in seconds since the epoch, its note.

    `owner` is the name of the key that made it; a run that is `pinned` is never forgotten.
    """

    run: str
    first_seen: float
    last_seen: float
    note: str | None
    owner: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class StreamName:
    """A model and a split, which have a series of their own."""

    model: str
    split: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run, its note, what it was scored with, and the gold sources it was measured against.

    `damaged` is the number of its stored rows that cannot be read and are left out everywhere.
    """

    run: str
    first_seen: float
    last_seen: float
    note: str | None
    owner: str
    pinned: bool
    damaged: int
    streams: list[StreamName]
    gold_sources: list[str]


@dataclass(frozen=True, slots=True)
class RuleProgress:
    """The data that a rule has seen in the latest steps, of those that it needs to decide."""

    seen: int
    needed: int
    unit: Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleState:
    """A rule at a stream's latest step.

    `state` is `fired`, `quiet` (it had what it needs, and nothing passed a threshold), `waiting`
    for more data (see `progress`), or `not_fed` (its input never came). It has a severity only
    where it fired. `since_step` is the step since which it has fired without a break. `value` was
    measured and passed `threshold`; `about` names the channels, labels or scripts concerned, and
    `evidence` the other numbers that it rests on. `thresholds` are the rule's own, and `limits`
    is what it cannot distinguish.
    """

    rule: str
    state: State
    severity: Severity | None
    progress: RuleProgress
    since_step: int | None
    value: float | None
    threshold: float | None
    about: list[str]
    evidence: dict[str, float]
    thresholds: dict[str, float | str]
    limits: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHealth:
    """The health of one model's scores in one split, at the latest `step`.

    `status` is the worst severity; without any it is `ok` once more rules are quiet than wait, and
    `waiting` until then. Where nothing was scored for a run, it is the health of the trainer's
    telemetry, without a model and a split.
    """

    model: str | None
    split: str | None
    step: int
    status: Status
    rules: list[RuleState]
    channels: dict[str, ChannelHealth]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, its 95 % interval, and the number of values that it was estimated from."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldMeasure:
    """The measurements at a step; null where a quantity was not measured. See `GoldPoint`."""

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
    """The health of a run.

    `status` is the worst of its streams and gold sources, and `waiting` where none of them is
    assessed; streams of shadows, whose scores were never served, do not count. A gold source that
    advises to stop is critical, any other advice warns, and one with a single measurement waits.
    `truncated`: there is more than a reply may hold: `model`, `split` and `source` narrow it down.
    `damaged` rows cannot be read and are left out.
    """

    run: str
    status: Status
    streams: list[StreamHealth]
    gold: list[GoldHealth]
    note: str | None = None
    truncated: bool = False
    damaged: int = 0

    def severities(self) -> dict[str, int]:
        """Return each rule's worst severity over all streams but those of shadows.

        It is -1 for a rule that waits or was not fed, 0 quiet, 1 warn, 2 critical.
        """
        worst_by_rule: dict[str, int] = {}
        served = [stream for stream in self.streams if not is_shadow(stream.split)]
        for state in (rule for stream in served for rule in stream.rules):
            rank = RANK[state.severity or ("ok" if state.state == "quiet" else "waiting")]
            worst_by_rule[state.rule] = max(worst_by_rule.get(state.rule, rank), rank)
        return worst_by_rule


def kept_runs(history: RunHistory) -> list[KeptRun]:
    """Return all runs, the one that was seen last first."""
    return [
        KeptRun(run.run, run.first_seen, run.last_seen, run.note, run.owner, run.pinned)
        for run in history.runs()
    ]


def run_report(history: RunHistory, run: str) -> RunReport | None:
    """Return a run's streams and gold sources; None if the run is unknown."""
    known = history.find(run)
    if known is None:
        return None
    return RunReport(
        run=known.run,
        first_seen=known.first_seen,
        last_seen=known.last_seen,
        note=known.note,
        owner=known.owner,
        pinned=known.pinned,
        damaged=history.damaged_rows(run),
        streams=[StreamName(*stream) for stream in history.streams(run)],
        gold_sources=history.sources(run),
    )


def run_health(
    history: RunHistory,
    run: str,
    rules: Sequence[Rule] = DEFAULT_RULES,
    *,
    model: str | None = None,
    split: str | None = None,
    source: str | None = None,
) -> RunHealth | None:
    """Evaluate the rules at the run's latest step; return None if the run is unknown.

    Args:
        history: to read from.
        run: its name.
        rules: to evaluate.
        model: the only model to return, or None; `split` and a gold `source` likewise.
        split: see `model`.
        source: see `model`.
    """
    known = history.find(run)
    if known is None:
        return None
    wanted = streams_of(history, run, model=model, split=split)
    streams = [
        _stream_health(stream, series, rules)
        for stream in wanted[:MAX_STREAMS]
        if (series := history.series(run, stream))
    ]
    measured = history.gold(run)
    if source is not None:
        measured = {name: points for name, points in measured.items() if name == source}
    shown = MAX_GOLD_POINTS // max(1, len(measured))
    gold = [gold_health(name, points, shown) for name, points in measured.items()]
    statuses = [stream.status for stream in streams if not is_shadow(stream.split)]
    statuses += [_gold_status(health) for health in gold]
    return RunHealth(
        run,
        worst(statuses),
        streams,
        gold,
        known.note,
        truncated=len(wanted) > MAX_STREAMS or any(len(p) > shown for p in measured.values()),
        damaged=history.damaged_rows(run),
    )


def gold_health(
    source: str, points: Sequence[GoldPoint], shown: int = MAX_GOLD_POINTS
) -> GoldHealth:
    """Return a source's latest measurements, by rising step, and the advice at the last."""
    latest = list(map(gold_measure, points[-shown:]))
    return GoldHealth(source, latest, GoldAdvisor().advise(points))


def gold_measure(point: GoldPoint) -> GoldMeasure:
    """Return a measurement with named intervals."""
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
    """Return the worst status; `waiting` if there are none."""
    return max(statuses, key=RANK.__getitem__, default="waiting")


def streams_of(
    history: RunHistory, run: str, *, model: str | None = None, split: str | None = None
) -> list[Stream]:
    """Return the streams of a run, or that of the trainer's telemetry where nothing was scored.

    Args:
        history: to read from.
        run: its name.
        model: the only model to return; None for all.
        split: the only split to return; None for all.
    """
    return [
        stream
        for stream in history.streams(run) or [TRAINER_STREAM]
        if model in (None, stream.model) and split in (None, stream.split)
    ]


def names_or_none(stream: Stream) -> tuple[str | None, str | None]:
    """Return the model and the split of a stream; None for the trainer's telemetry."""
    return stream.model or None, stream.split or None


def _stream_health(stream: Stream, series: Sequence[Point], rules: Sequence[Rule]) -> StreamHealth:
    evaluations = evaluate_rules(series, rules)
    model, split = names_or_none(stream)
    return StreamHealth(
        model=model,
        split=split,
        step=series[-1].step,
        status=overall_status(series, evaluations),
        rules=list(map(_state, evaluations)),
        channels=channel_health(series),
    )


def _state(evaluation: Evaluation) -> RuleState:
    rule, since_step, finding, progress = evaluation
    return RuleState(
        rule=rule.id,
        state=evaluation.state,
        severity=finding.severity if finding else None,
        progress=RuleProgress(*progress),
        since_step=since_step if finding else None,
        value=finding.value if finding else None,
        threshold=finding.threshold if finding else None,
        about=list(finding.about) if finding else [],
        evidence=dict(finding.evidence) if finding else {},
        thresholds=_thresholds(rule),
        limits=rule.limits,
    )


def _thresholds(rule: Any) -> dict[str, float | str]:
    return {field.name: getattr(rule, field.name) for field in fields(rule)}


def _gold_status(source: GoldHealth) -> Status:
    if source.advice is None:
        return "ok" if len(source.points) > 1 else "waiting"
    return "critical" if source.advice.action == "stop" else "warn"


def _interval(estimate: Estimate | None) -> Interval | None:
    return None if estimate is None else Interval(*estimate)
