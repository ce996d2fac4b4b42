"""Quantiles of any number of values in bounded room."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from assay_monitors.moments import clamped

ACCURACY = 0.02
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
LOG_GAMMA = math.log(GAMMA)
SMALLEST = math.floor(math.log(1e-6) / LOG_GAMMA)
LARGEST = math.ceil(math.log(1e9) / LOG_GAMMA)


@dataclass(slots=True)
class Sketch:
    """Counts of values in buckets that grow by 4 %, mirrored at zero.

    A quantile of it lies within 2 % of one of the values, for magnitudes from 1e-6 to 1e9; smaller
    ones count as zero, larger ones as the last bucket. The buckets are fixed, so sketches merge
    without loss: DDSketch (Masson, Rim and Lee, VLDB 2019) with a bounded range.
    """

    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, value: float, times: int = 1) -> None:
        """Take one finite value in, once or several times."""
        bucket = _bucket(clamped(value))
        self.buckets[bucket] = self.buckets.get(bucket, 0) + times

    def merge(self, other: "Sketch") -> None:
        """Take in all that the other has taken in."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    @property
    def count(self) -> int:
        """How many values it has taken in."""
        return sum(self.buckets.values())

    def quantile(self, share: float) -> float | None:
        """The value below which that share of the values lies, 0 to 1; None of no values."""
        rank = share * (self.count - 1)
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen > rank:
                return _value(bucket)
        return None

    def share_below(self, bound: float) -> float:
        """The share of values in buckets whose middle is below a bound; 0 of no values."""
        below = sum(count for bucket, count in self.buckets.items() if _value(bucket) < bound)
        return below / self.count if self.buckets else 0.0

    def masses(self) -> Iterator[tuple[float, float, int]]:
        """By rising value, how many values lie between which bounds; zeros between 0 and 0."""
        for bucket in sorted(self.buckets):
            yield *_bounds(bucket), self.buckets[bucket]


def _bounds(bucket: int) -> tuple[float, float]:
    if not bucket:
        return 0.0, 0.0
    near, far = (GAMMA ** (abs(bucket) + SMALLEST - less) for less in (1, 0))
    return (near, far) if bucket > 0 else (-far, -near)


def _bucket(value: float) -> int:
    if not value:
        return 0
    index = math.ceil(math.log(abs(value)) / LOG_GAMMA)
    magnitude = max(0, min(LARGEST, index) - SMALLEST)
    return magnitude if value > 0 else -magnitude


def _value(bucket: int) -> float:
    if not bucket:
        return 0.0
    middle = 2 * GAMMA ** (abs(bucket) + SMALLEST) / (GAMMA + 1)
    return math.copysign(middle, bucket)
