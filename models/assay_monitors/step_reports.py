"""Reports of the steps of a run, as the service returns them."""

from collections.abc import Mapping
from dataclasses import dataclass

from assay_monitors.history import RunHistory
from assay_monitors.moments import Moments
from assay_monitors.reports import find_run, names_or_none, streams_of
from assay_monitors.sketch import QuantileSketch
from assay_monitors.summaries import Point, Summary

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


def run_series(
    history: RunHistory, run: str, *, model: str | None, split: str | None, since: int
) -> list[StreamSeries] | None:
    """Return the steps from `since` on of all streams, or of those of a model or a split.

    Returns:
        The steps by stream; None if the run is unknown.
    """
    if find_run(history, run) is None:
        return None
    return [
        StreamSeries(
            *names_or_none(stream),
            [_step_report(point) for point in history.series(run, stream) if point.step >= since],
        )
        for stream in streams_of(history, run)
        if model in (None, stream.model) and split in (None, stream.split)
    ]


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
