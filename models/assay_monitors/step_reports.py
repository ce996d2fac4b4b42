"""Reports of the steps of a run, as the service returns them."""

from collections.abc import Mapping
from dataclasses import dataclass

from assay_monitors.history import RunHistory
from assay_monitors.moments import Moments
from assay_monitors.reports import names_or_none, streams_of
from assay_monitors.sketch import QuantileSketch
from assay_monitors.summaries import Point, Summary

MAX_VALUES = 120_000
"""Numbers in a reply, about 3 MB: some 2,000 steps."""
VALUES_PER_STEP = 25
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The count, mean, standard deviation, minimum and maximum of values."""

    count: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """The statistics of a step.

    `…_quantiles` are the tenth, fiftieth and ninetieth percentile, with an error of 2 %. `groups`
    counts those of two scored items or more in a sample, `groups_without_variance` those of them
    that do not vary on any channel. `telemetry` has the means of the trainer's values.
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


@dataclass(frozen=True, slots=True)
class RunSeries:
    """The step-by-step values of each of a run's streams.

    `truncated`: there are more than a reply may hold. Ask again for the last stream with its
    `model`, its `split`, and `since` the step after its last, then for the streams after it.
    `damaged` rows cannot be read and are left out.
    """

    run: str
    streams: list[StreamSeries]
    truncated: bool
    damaged: int


def run_series(
    history: RunHistory, run: str, *, model: str | None, split: str | None, since: int
) -> RunSeries | None:
    """Return the steps from `since` on of all streams, or of those of a model or a split.

    Returns:
        The steps by stream; None if the run is unknown.
    """
    if history.find(run) is None:
        return None
    streams: list[StreamSeries] = []
    left, truncated = MAX_VALUES, False
    for stream in streams_of(history, run, model=model, split=split):
        truncated |= left < VALUES_PER_STEP
        if truncated:
            break
        points = history.series(run, stream, since=since, limit=left // VALUES_PER_STEP + 1)
        steps: list[StepReport] = []
        for report in map(_step_report, points):
            left -= _values_of(report)
            if left < 0 and steps:
                truncated = True
                break
            steps.append(report)
        streams.append(StreamSeries(*names_or_none(stream), steps))
    return RunSeries(run, streams, truncated, history.damaged_rows(run))


def _values_of(report: StepReport) -> int:
    """Return how many numbers a step has, about."""
    counts = (report.labels, report.flags, report.sources, report.scripts, report.calls)
    names = sum(map(len, counts)) + len(report.telemetry)
    return VALUES_PER_STEP + 5 * len(report.channels) + names


def _step_report(point: Point) -> StepReport:
    step, summary = point
    constant, groups = summary.groups.count_zero_variance(0.0)
    return StepReport(
        step=step,
        items=summary.items,
        nulls=summary.nulls,
        truncated=summary.truncated,
        invalid=summary.invalid,
        score=_spread(summary.score),
        score_quantiles=_quantiles(summary.scores),
        channels=_spreads(summary.channels),
        character_quantiles=_quantiles(summary.characters),
        token_quantiles=_quantiles(summary.tokens),
        length_score=summary.length_score.correlation,
        labels=summary.labels,
        flags=summary.flags,
        sources=summary.sources,
        scripts=summary.scripts,
        calls=summary.calls,
        groups=groups,
        groups_without_variance=constant,
        telemetry=_means(summary),
    )


def _spreads(moments: Mapping[str, Moments]) -> dict[str, Spread]:
    return {name: _spread(channel) for name, channel in moments.items()}


def _spread(moments: Moments) -> Spread:
    if not moments.count:
        return Spread(count=0, mean=None, std=None, low=None, high=None)
    return Spread(
        count=moments.count,
        mean=moments.mean,
        std=moments.std,
        low=moments.low,
        high=moments.high,
    )


def _quantiles(sketch: QuantileSketch) -> list[float]:
    values = [sketch.quantile(share) for share in QUANTILES]
    return [value for value in values if value is not None]


def _means(summary: Summary) -> dict[str, float]:
    means = {name: moments.mean for name, moments in summary.telemetry.items()}
    return {name: mean for name, mean in means.items() if mean is not None}
