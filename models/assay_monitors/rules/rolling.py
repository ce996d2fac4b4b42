"""Rolling statistics over a series: pooled recent points, baselines, exponential averages."""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import median
from typing import NamedTuple, Protocol, Self, TypeVar

from assay_monitors.moments import Moments
from assay_monitors.summaries import Point, Summary

EARLY_POINTS = 5
TRAILING_POINTS = 20
SCORE = "score"


class Pool(Protocol):
    """Mergeable statistics with a count of values."""

    @property
    def count(self) -> int:
        """The number of values that were added."""

    def merge(self, other: Self) -> None:
        """Add all values of `other`."""


P = TypeVar("P", bound=Pool)
T = TypeVar("T")


@dataclass(slots=True)
class Tally:
    """Counts by name."""

    counts: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The sum of the counts of all names."""
        return sum(self.counts.values())

    def merge(self, other: "Tally") -> None:
        """Add the counts of `other`."""
        for name, times in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + times

    def share(self, name: str) -> float:
        """Return the share of one name; 0 if the tally is empty."""
        return self.counts.get(name, 0) / self.count if self.counts else 0.0

    @property
    def top(self) -> str:
        """The most frequent name; of several, the first in alphabetical order."""
        return min(self.counts, key=lambda name: (-self.counts[name], name))


def tallies(counts: Sequence[Mapping[str, int]]) -> list[Tally]:
    """Return counts as tallies, which can be pooled."""
    return [Tally(dict(count)) for count in counts]


def pool_recent(parts: Sequence[P], empty: type[P], min_count: int) -> list[P | None]:
    """Merge, at each point, the fewest latest parts that hold at least `min_count` values.

    Returns:
        One pool for each point, None where all parts so far hold fewer values.
    """
    totals = [0, *accumulate(part.count for part in parts)]
    pools: list[P | None] = []
    # The pool is `older`, the parts from `start` to `middle`, and `newer`, those from there on. So
    # each part is merged a few times, however many parts a pool needs.
    start, middle = 0, 0
    older, newer = [empty()], empty()
    for end, part in enumerate(parts, 1):
        while start + 1 < end and totals[end] - totals[start + 1] >= min_count:
            start += 1
        if start >= middle:
            older, newer, middle = _merge_back(parts[start:end], empty), empty(), end
        else:
            newer.merge(part)
        is_enough = totals[end] - totals[start] >= min_count
        latest = (older[middle - start - 1], newer)
        pools.append(merge_all(latest, empty) if is_enough else None)
    return pools


def merge_all(parts: Iterable[P], empty: type[P]) -> P:
    """Return all parts as one."""
    whole = empty()
    for part in parts:
        whole.merge(part)
    return whole


def early_median(values: Sequence[float | None]) -> list[float | None]:
    """Return, for each point, the median of the first five values, once they lie before it."""
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    first = known[:EARLY_POINTS]
    if len(first) < EARLY_POINTS:
        return [None] * len(values)
    middle = median(value for _, value in first)
    return [middle if place > first[-1][0] else None for place in range(len(values))]


def forward_fill(values: Sequence[T | None]) -> list[T | None]:
    """Replace each missing value by the last known one."""
    last: T | None = None
    filled: list[T | None] = []
    for value in values:
        last = last if value is None else value
        filled.append(last)
    return filled


def switch_once_known(
    known: Iterable[bool], preferred: Iterable[T], fallback: Iterable[T]
) -> Iterator[T]:
    """Yield values of `fallback` until the preferred measure is known once, then of `preferred`.

    A later point must not change an earlier result, so a rule with two measures chooses between
    them point by point, never by the whole series.
    """
    so_far = accumulate(known, operator.or_)
    rows = zip(so_far, preferred, fallback, strict=True)
    return (value if seen else other for seen, value, other in rows)


def telemetry_values(series: Sequence[Point], name: str) -> list[float | None]:
    """Return a telemetry value by point, forward filled where none was recorded."""
    return forward_fill(recorded_values(series, name))


def recorded_values(series: Sequence[Point], name: str) -> list[float | None]:
    """Return a telemetry value by point, None where none was recorded."""
    moments = [summary.telemetry.get(name) for _, summary in series]
    return [None if known is None else known.mean for known in moments]


def latest_values(values: Sequence[float | None], number: int) -> list[tuple[float, ...]]:
    """Return, for each point, the latest known values, at most `number` of them."""
    latest: tuple[float, ...] = ()
    by_point = []
    for value in values:
        latest = latest if value is None else (*latest, value)[-number:]
        by_point.append(latest)
    return by_point


def moments_of(summary: Summary, name: str) -> Moments:
    """Return the moments of `score`, of a channel, or of telemetry under a channel's name.

    They are empty where the summary has none.
    """
    if name == SCORE:
        return summary.score
    return summary.channels.get(name) or summary.telemetry.get(name) or Moments()


class Average(NamedTuple):
    """An exponentially weighted mean with its variance, and its highest value so far."""

    mean: float
    variance: float
    peak: float
    peak_variance: float
    peak_step: int

    @property
    def drawdown(self) -> float:
        """The distance below the peak as a share of the peak; 0 if the peak is not positive."""
        return (self.peak - self.mean) / self.peak if self.peak > 0 else 0.0

    def has_fallen_by(self, errors: float) -> bool:
        """Return whether the fall is more than that many standard errors of sampling."""
        noise = self.variance + self.peak_variance
        return (self.peak - self.mean) ** 2 > errors**2 * noise


class WeightedMean(NamedTuple):
    """The mean of one point, its weight in the average, and its variance."""

    step: int
    weight: float
    mean: float
    variance: float


def exponential_averages(
    series: Sequence[Point], name: str, half_life: float
) -> list[Average | None]:
    """Return the exponential moving average at each point, carried on where nothing was recorded.

    A point weighs 1 - 0.5 ** (steps since the last point / half-life), so that points far apart
    count by themselves and points of neighbouring steps are smoothed. The items of a group share a
    prompt and its difficulty: for the variance a whole group counts as one item.
    """
    averages: list[Average | None] = []
    latest: Average | None = None
    step = 0
    for point in series:
        moments = moments_of(point.summary, name)
        if moments.count:
            seen = WeightedMean(
                step=point.step,
                weight=1 - 0.5 ** ((point.step - step) / half_life),
                mean=moments.mean or 0.0,
                variance=moments.standard_error**2 * point.summary.groups.mean_size,
            )
            latest = _update_average(latest, seen)
            step = point.step
        averages.append(latest)
    return averages


def _update_average(latest: Average | None, seen: WeightedMean) -> Average:
    if latest is None:
        return _at_peak(seen.mean, seen.variance, seen.step)
    mean = latest.mean + seen.weight * (seen.mean - latest.mean)
    variance = (1 - seen.weight) ** 2 * latest.variance + seen.weight**2 * seen.variance
    if mean >= latest.peak:
        return _at_peak(mean, variance, seen.step)
    return latest._replace(mean=mean, variance=variance)


def _at_peak(mean: float, variance: float, step: int) -> Average:
    return Average(mean=mean, variance=variance, peak=mean, peak_variance=variance, peak_step=step)


def _merge_back(parts: Sequence[P], empty: type[P]) -> list[P]:
    """Return the last part, the last two as one, and so on, up to all of them."""
    merged: list[P] = []
    for part in reversed(parts):
        merged.append(merge_all((part, *merged[-1:]), empty))
    return merged
