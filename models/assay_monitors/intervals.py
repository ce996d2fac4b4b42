"""Numbers with 95 % intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

ERRORS = 1.96


class Estimate(NamedTuple):
    """A value, its 95 % interval, and from how many values it was estimated."""

    value: float
    low: float
    high: float
    n: int

    @property
    def variance(self) -> float:
        """The square of the standard error that the interval's width speaks of."""
        return ((self.high - self.low) / 2 / ERRORS) ** 2


def exact(value: float) -> Estimate:
    """A value that is taken at its word."""
    return Estimate(value, value, value, 1)


def around(value: float, error: float, n: int) -> Estimate:
    """A value with a standard error, its distribution taken for normal."""
    return Estimate(value, value - ERRORS * error, value + ERRORS * error, n)


def wilson(hits: int, total: int) -> Estimate:
    """A share, with Wilson's score interval (JASA 1927); 0 in [0, 1] of nothing."""
    if not total:
        return Estimate(0.0, 0.0, 1.0, 0)
    share, weight = hits / total, ERRORS**2 / total
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), total)


def mean(values: Sequence[float]) -> Estimate:
    """The mean of values, which may not be none; a single one is taken at its word."""
    n = len(values)
    value = math.fsum(values) / n
    if n == 1:
        return exact(value)
    variance = math.fsum((one - value) ** 2 for one in values) / (n - 1)
    return around(value, math.sqrt(variance / n), n)


def slope(steps: Sequence[int], estimates: Sequence[Estimate]) -> Estimate:
    """The least-squares slope per step of two estimates or more, its error that of the estimates
    alone; steps are distinct.
    """
    n = len(steps)
    middle = math.fsum(steps) / n
    away = [step - middle for step in steps]
    spread = math.fsum(one * one for one in away)
    pairs = list(zip(away, estimates, strict=True))
    value = math.fsum(one * estimate.value for one, estimate in pairs) / spread
    variance = math.fsum(one * one * estimate.variance for one, estimate in pairs)
    return around(value, math.sqrt(variance) / spread, n)


def spearman(xs: Sequence[float], ys: Sequence[float]) -> Estimate | None:
    """Spearman's rank correlation, ties sharing their mean rank; None where one side is constant.

    The interval is Fisher's with the variance of Bonett and Wright (Psychometrika 2000), and says
    nothing of fewer than four pairs.
    """
    value = _pearson(_ranks(xs), _ranks(ys))
    if value is None:
        return None
    n = len(xs)
    if n < 4:
        return Estimate(value, -1.0, 1.0, n)
    if abs(value) == 1.0:
        return Estimate(value, value, value, n)
    half = ERRORS * math.sqrt((1 + value**2 / 2) / (n - 3))
    middle = math.atanh(value)
    return Estimate(value, math.tanh(middle - half), math.tanh(middle + half), n)


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + end - 1) / 2
        start = end
    return ranks


def _pearson(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    n = len(xs)
    if n < 2:
        return None
    mid_x, mid_y = math.fsum(xs) / n, math.fsum(ys) / n
    away = [(x - mid_x, y - mid_y) for x, y in zip(xs, ys, strict=True)]
    spread_x = math.fsum(x * x for x, _ in away)
    spread_y = math.fsum(y * y for _, y in away)
    if not spread_x or not spread_y:
        return None
    together = math.fsum(x * y for x, y in away) / math.sqrt(spread_x * spread_y)
    return max(-1.0, min(1.0, together))
