"""Quantiles of any number of values in bounded memory (DDSketch)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from assay_monitors.moments import clamp

RELATIVE_ERROR = 0.02
GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
LOG_GAMMA = math.log(GAMMA)
MIN_INDEX = math.floor(math.log(1e-6) / LOG_GAMMA)
MAX_INDEX = math.ceil(math.log(1e9) / LOG_GAMMA)


@dataclass(slots=True)
class QuantileSketch:
    """Counts of values in buckets that grow by 4 %, mirrored at zero.

    A quantile of it lies within 2 % of one of the values, for magnitudes from 1e-6 to 1e9. Smaller
    magnitudes count as zero, larger ones as the last bucket. The buckets are fixed, so sketches
    merge without loss: DDSketch (Masson, Rim and Lee, VLDB 2019) with a bounded range.
    """

    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, value: float, times: int = 1) -> None:
        """Add one finite value, once or several times."""
        bucket = _bucket_of(clamp(value))
        self.buckets[bucket] = self.buckets.get(bucket, 0) + times

    def merge(self, other: "QuantileSketch") -> None:
        """Add all values of `other`."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    @property
    def count(self) -> int:
        """The number of values that were added."""
        return sum(self.buckets.values())

    def quantile(self, share: float) -> float | None:
        """Return the value below which that share of the values lies, 0 to 1; None if empty."""
        rank = share * (self.count - 1)
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen > rank:
                return _midpoint(bucket)
        return None

    def share_below(self, bound: float) -> float:
        """Return the share of values in buckets whose midpoint is below a bound; 0 if empty."""
        below = sum(count for bucket, count in self.buckets.items() if _midpoint(bucket) < bound)
        return below / self.count if self.buckets else 0.0

    def bucket_counts(self) -> Iterator[tuple[float, float, int]]:
        """Yield (lower bound, upper bound, count) by rising value; zeros are between 0 and 0."""
        for bucket in sorted(self.buckets):
            yield *_bounds(bucket), self.buckets[bucket]


def _bounds(bucket: int) -> tuple[float, float]:
    if not bucket:
        return 0.0, 0.0
    near, far = (GAMMA ** (abs(bucket) + MIN_INDEX - less) for less in (1, 0))
    return (near, far) if bucket > 0 else (-far, -near)


def _bucket_of(value: float) -> int:
    if not value:
        return 0
    index = math.ceil(math.log(abs(value)) / LOG_GAMMA)
    magnitude = max(0, min(MAX_INDEX, index) - MIN_INDEX)
    return magnitude if value > 0 else -magnitude


def _midpoint(bucket: int) -> float:
    if not bucket:
        return 0.0
    midpoint = 2 * GAMMA ** (abs(bucket) + MIN_INDEX) / (GAMMA + 1)
    return math.copysign(midpoint, bucket)
