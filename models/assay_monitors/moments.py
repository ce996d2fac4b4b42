"""Sums that do not depend on the order of what is added, to the last bit."""

import math
from dataclasses import dataclass

FRACTION_BITS = 40
LARGEST = 2.0**53


@dataclass(slots=True)
class Moments:
    """Count, sum, sum of squares and extremes of values.

    Values are held as multiples of 2**-40, about 1e-12, and those beyond 2**53 as 2**53: sums of
    integers are the same in any order, which sums of floats are not, and no variance is lost to
    cancellation.
    """

    count: int = 0
    total: int = 0
    squares: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        """Take one finite value in."""
        near = clamped(value)
        whole = fixed(near)
        self.count += 1
        self.total += whole
        self.squares += whole * whole
        if near < self.low:
            self.low = near
        if near > self.high:
            self.high = near

    def merge(self, other: "Moments") -> None:
        """Take in all that the other has taken in."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def mean(self) -> float | None:
        """None of no values."""
        return self.total / (self.count << FRACTION_BITS) if self.count else None

    @property
    def std(self) -> float | None:
        """The population's; None of no values."""
        if not self.count:
            return None
        spread = self.count * self.squares - self.total * self.total
        return math.sqrt(spread / (self.count * self.count << 2 * FRACTION_BITS))

    @property
    def standard_error(self) -> float:
        """Of the mean; 0 of a single value, which is taken as a mean that somebody else made."""
        if self.count < 2:
            return 0.0
        return (self.std or 0.0) / math.sqrt(self.count - 1)


@dataclass(slots=True)
class Comoments:
    """The sums that a correlation needs, of pairs in which both values are there; held as
    `Moments` holds its own.
    """

    count: int = 0
    x: int = 0
    y: int = 0
    xx: int = 0
    yy: int = 0
    xy: int = 0

    def add(self, x: float, y: float) -> None:
        """Take one pair of finite values in."""
        one, other = fixed(clamped(x)), fixed(clamped(y))
        self.count += 1
        self.x += one
        self.y += other
        self.xx += one * one
        self.yy += other * other
        self.xy += one * other

    def merge(self, other: "Comoments") -> None:
        """Take in all that the other has taken in."""
        self.count += other.count
        self.x += other.x
        self.y += other.y
        self.xx += other.xx
        self.yy += other.yy
        self.xy += other.xy

    @property
    def correlation(self) -> float | None:
        """Pearson's; None where one side does not vary."""
        spread_x = self.count * self.xx - self.x * self.x
        spread_y = self.count * self.yy - self.y * self.y
        if not spread_x or not spread_y:
            return None
        together = self.count * self.xy - self.x * self.y
        exact = together / (math.sqrt(spread_x) * math.sqrt(spread_y))
        return max(-1.0, min(1.0, exact))


def clamped(value: float) -> float:
    """The value, or the nearest that the sums can hold; never a negative zero."""
    if -LARGEST <= value <= LARGEST:
        return value + 0.0
    return LARGEST if value > 0 else -LARGEST


def fixed(value: float) -> int:
    """The value in units of 2**-40."""
    return round(math.ldexp(value, FRACTION_BITS))
