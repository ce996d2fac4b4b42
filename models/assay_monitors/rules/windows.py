"""Looking back from a step: pooled neighbours, baselines, averages that know the steps between."""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import median
from typing import NamedTuple, Protocol, Self, TypeVar

from assay_monitors.moments import Moments
from assay_monitors.summaries import Point, Summary

REACH = 100
EARLY = 5
MEMORY = 20
SCORE = "score"


class Pool(Protocol):
    """Sums that know how many values they hold."""

    @property
    def count(self) -> int:
        """How many values it has taken in."""

    def merge(self, other: Self) -> None:
        """Take in all that the other has taken in."""


P = TypeVar("P", bound=Pool)
T = TypeVar("T")


@dataclass(slots=True)
class Tally:
    """Counts by name."""

    counts: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many in all."""
        return sum(self.counts.values())

    def merge(self, other: "Tally") -> None:
        """Add the other's."""
        for name, times in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + times

    def share(self, name: str) -> float:
        """Of one name; 0 of nothing."""
        return self.counts.get(name, 0) / self.count if self.counts else 0.0

    @property
    def top(self) -> str:
        """The most frequent name; the first in the alphabet of several."""
        return min(self.counts, key=lambda name: (-self.counts[name], name))


def pooled(parts: Sequence[P], empty: type[P], least: int) -> list[P | None]:
    """For each point, the fewest latest parts that hold at least so many values; None where the
    hundred latest hold fewer.
    """
    if sum([part.count for part in parts]) < least:
        return [None] * len(parts)
    return [_latest(parts[max(0, end - REACH) : end], empty, least) for end in _ends(parts)]


def early(values: Sequence[float | None]) -> list[float | None]:
    """For each point, the median of the first five values, once they lie before it."""
    known = [(place, value) for place, value in enumerate(values) if value is not None][:EARLY]
    if len(known) < EARLY:
        return [None] * len(values)
    middle = median(value for _, value in known)
    return [middle if place > known[-1][0] else None for place in range(len(values))]


def filled(values: Sequence[T | None]) -> list[T | None]:
    """Each missing value as the last known one."""
    last: T | None = None
    carried: list[T | None] = []
    for value in values:
        last = last if value is None else value
        carried.append(last)
    return carried


def once_known(known: Iterable[bool], these: Iterable[T], those: Iterable[T]) -> Iterator[T]:
    """Those until something is known of these for the first time, and these from then on.

    What comes later must not change what was found before, so that a rule never asks the whole
    series which of two measures it has.
    """
    so_far = accumulate(known, operator.or_)
    return (one if seen else other for seen, one, other in zip(so_far, these, those, strict=True))


def told(series: Sequence[Point], name: str) -> list[float | None]:
    """What the trainer told under a name, by point, carried on where it did not."""
    known = [summary.telemetry.get(name) for _, summary in series]
    return filled([None if one is None else one.mean for one in known])


def moments_of(summary: Summary, name: str) -> Moments:
    """The moments of `score`, of a channel, or of a value that the trainer sends under a channel's
    name; empty where there are none.
    """
    if name == SCORE:
        return summary.score
    return summary.channels.get(name) or summary.telemetry.get(name) or Moments()


class Average(NamedTuple):
    """An exponentially weighted mean, the variance of that mean, and the highest it has been."""

    mean: float
    variance: float
    peak: float
    peak_variance: float
    peak_step: int

    @property
    def fall(self) -> float:
        """How far below its peak, as a share of the peak; 0 of a peak that is not positive."""
        return (self.peak - self.mean) / self.peak if self.peak > 0 else 0.0

    def surely_fallen(self, errors: float) -> bool:
        """Whether the fall is more than so many standard errors of sampling."""
        noise = self.variance + self.peak_variance
        return (self.peak - self.mean) ** 2 > errors**2 * noise


class Seen(NamedTuple):
    """One point's mean, how much it weighs, and its variance."""

    step: int
    weight: float
    mean: float
    variance: float


def averaged(series: Sequence[Point], name: str, half_life: float) -> list[Average | None]:
    """The average at each point, carried on where nothing was seen.

    A point weighs 1 - 0.5 ** (steps since the last point / half-life), so that points far apart
    count by themselves and points of neighbouring steps are smoothed. The items of a group share a
    prompt and its difficulty: for the variance a whole group counts as one item.
    """
    found: list[Average | None] = []
    latest: Average | None = None
    step = 0
    for point in series:
        moments = moments_of(point.summary, name)
        if moments.count:
            seen = Seen(
                point.step,
                1 - 0.5 ** ((point.step - step) / half_life),
                moments.mean or 0.0,
                moments.standard_error**2 * point.summary.groups.mean_size,
            )
            latest = _moved(latest, seen)
            step = point.step
        found.append(latest)
    return found


def _moved(latest: Average | None, seen: Seen) -> Average:
    step, weight, value, noise = seen
    if latest is None:
        return Average(value, noise, value, noise, step)
    mean = latest.mean + weight * (value - latest.mean)
    variance = (1 - weight) ** 2 * latest.variance + weight**2 * noise
    if mean >= latest.peak:
        return Average(mean, variance, mean, variance, step)
    return latest._replace(mean=mean, variance=variance)


def _ends(parts: Sequence[object]) -> range:
    return range(1, len(parts) + 1)


def _latest(parts: Sequence[P], empty: type[P], least: int) -> P | None:
    whole = empty()
    for part in reversed(parts):
        whole.merge(part)
        if whole.count >= least:
            return whole
    return None


def tallies(counts: Sequence[Mapping[str, int]]) -> list[Tally]:
    """Counts as they can be pooled."""
    return [Tally(dict(one)) for one in counts]
