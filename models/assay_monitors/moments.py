"""Count, mean, variance and correlation, by exact sums of fixed-point integers.

The order in which values are added does not change the result, not even in the last bit.
"""

import math
from dataclasses import dataclass

FRACTION_BITS = 40
MAX_MAGNITUDE = 2.0**53


@dataclass(slots=True, kw_only=True)
class Moments:
    """Count, sum, sum of squares, minimum and maximum of values.

    Values are held as multiples of 2**-40, about 1e-12, and those beyond 2**53 as 2**53. Sums of
    integers are the same in any order, which sums of floats are not, and no variance is lost to
    cancellation.
    """

    count: int = 0
    total: int = 0
    squares: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        """Add one finite value."""
        clamped = clamp(value)
        fixed = to_fixed_point(clamped)
        self.count += 1
        self.total += fixed
        self.squares += fixed * fixed
        if clamped < self.low:
            self.low = clamped
        if clamped > self.high:
            self.high = clamped

    def merge(self, other: "Moments") -> None:
        """Add all values of `other`."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def mean(self) -> float | None:
        """The arithmetic mean; None where there are no values."""
        return self.total / (self.count << FRACTION_BITS) if self.count else None

    @property
    def std(self) -> float | None:
        """The population's standard deviation; None where there are no values."""
        if not self.count:
            return None
        spread = self.count * self.squares - self.total * self.total
        return math.sqrt(spread / (self.count * self.count << 2 * FRACTION_BITS))

    @property
    def standard_error(self) -> float:
        """The standard error of the mean.

        It is 0 for a single value, which is taken to be a mean that was computed elsewhere.
        """
        if self.count < 2:
            return 0.0
        return (self.std or 0.0) / math.sqrt(self.count - 1)


@dataclass(slots=True, kw_only=True)
class Comoments:
    """The sums that Pearson's correlation needs, over pairs in which both values are present.

    The sums are fixed-point integers, as in `Moments`.
    """

    count: int = 0
    x: int = 0
    y: int = 0
    xx: int = 0
    yy: int = 0
    xy: int = 0

    def add(self, x: float, y: float) -> None:
        """Add one pair of finite values."""
        fixed_x, fixed_y = to_fixed_point(clamp(x)), to_fixed_point(clamp(y))
        self.count += 1
        self.x += fixed_x
        self.y += fixed_y
        self.xx += fixed_x * fixed_x
        self.yy += fixed_y * fixed_y
        self.xy += fixed_x * fixed_y

    def merge(self, other: "Comoments") -> None:
        """Add all pairs of `other`."""
        self.count += other.count
        self.x += other.x
        self.y += other.y
        self.xx += other.xx
        self.yy += other.yy
        self.xy += other.xy

    @property
    def correlation(self) -> float | None:
        """Pearson's correlation; None where one side does not vary."""
        spread_x = self.count * self.xx - self.x * self.x
        spread_y = self.count * self.yy - self.y * self.y
        if not spread_x or not spread_y:
            return None
        together = self.count * self.xy - self.x * self.y
        exact = together / (math.sqrt(spread_x) * math.sqrt(spread_y))
        return max(-1.0, min(1.0, exact))


def clamp(value: float) -> float:
    """Return the value, or the nearest that the sums can hold; never a negative zero."""
    if -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE:
        return value + 0.0
    return MAX_MAGNITUDE if value > 0 else -MAX_MAGNITUDE


def to_fixed_point(value: float) -> int:
    """Return the value in units of 2**-40."""
    return round(math.ldexp(value, FRACTION_BITS))
