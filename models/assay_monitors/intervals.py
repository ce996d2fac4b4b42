"""Estimates with 95 % confidence intervals."""

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import count
from typing import NamedTuple

Z_95 = 1.96
FALSE_ALARM_RATE = 0.001
"""The chance that an interval of `share_at_any_time` ever misses the share that it estimates."""
BISECTIONS = 40


class Estimate(NamedTuple):
    """A value, its 95 % interval, and the number of values that it was estimated from."""

    value: float
    low: float
    high: float
    n: int

    @property
    def variance(self) -> float:
        """The square of the standard error that the interval's width implies."""
        return ((self.high - self.low) / 2 / Z_95) ** 2


def exact(value: float) -> Estimate:
    """Return an estimate without an error."""
    return Estimate(value, value, value, 1)


def normal(value: float, error: float, n: int) -> Estimate:
    """Return an estimate with a standard error, taken to be normally distributed."""
    return Estimate(value, value - Z_95 * error, value + Z_95 * error, n)


def wilson(hits: int, total: int) -> Estimate:
    """Return a share with Wilson's score interval (JASA 1927); 0 in [0, 1] where `total` is 0."""
    if not total:
        return Estimate(0.0, 0.0, 1.0, 0)
    share, weight = hits / total, Z_95**2 / total
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), total)


@lru_cache(maxsize=4096)
def share_at_any_time(hits: int, total: int) -> Estimate:
    """Return a share with an interval that may be read after every item: a confidence sequence.

    The intervals of a growing sample all hold the share, with a chance of 99.9 %, however often
    they are read; a Wilson interval is right for one reading only. It is the beta-binomial mixture
    with a uniform prior (Robbins, Ann. Math. Statist. 1970; Howard et al., arXiv 1810.08240).
    """
    low, high = _lowest_share(hits, total), 1 - _lowest_share(total - hits, total)
    return Estimate(hits / total if total else 0.0, low, high, total)


@cache
def items_to_exclude(share: float) -> int:
    """Return the fewest items, all alike, after which others surely have less than that share."""
    return next(total for total in count(1) if share_at_any_time(0, total).high <= share)


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean of one value or more; that of a single value has no error."""
    n = len(values)
    average = math.fsum(values) / n
    if n == 1:
        return exact(average)
    variance = math.fsum((value - average) ** 2 for value in values) / (n - 1)
    return normal(average, math.sqrt(variance / n), n)


def slope(steps: Sequence[int], estimates: Sequence[Estimate]) -> Estimate:
    """Return the least-squares slope per step of two estimates or more; steps are distinct.

    Its error is that of the estimates alone.
    """
    n = len(steps)
    middle = math.fsum(steps) / n
    offsets = [step - middle for step in steps]
    spread = math.fsum(offset * offset for offset in offsets)
    pairs = list(zip(offsets, estimates, strict=True))
    value = math.fsum(offset * estimate.value for offset, estimate in pairs) / spread
    variance = math.fsum(offset * offset * estimate.variance for offset, estimate in pairs)
    return normal(value, math.sqrt(variance) / spread, n)


def spearman(xs: Sequence[float], ys: Sequence[float]) -> Estimate | None:
    """Return Spearman's rank correlation; None where one side is constant.

    Ties share their mean rank. The interval is Fisher's with the variance of Bonett and Wright
    (Psychometrika 2000); for fewer than four pairs it is [-1, 1].
    """
    value = _pearson(_ranks(xs), _ranks(ys))
    if value is None:
        return None
    n = len(xs)
    if n < 4:
        return Estimate(value, -1.0, 1.0, n)
    if abs(value) == 1.0:
        return Estimate(value, value, value, n)
    half = Z_95 * math.sqrt((1 + value**2 / 2) / (n - 3))
    middle = math.atanh(value)
    return Estimate(value, math.tanh(middle - half), math.tanh(middle + half), n)


def _lowest_share(hits: int, total: int) -> float:
    """Return the lowest share at which the mixture's likelihood ratio is below 1 / 0.001."""
    if not hits:
        return 0.0
    misses = total - hits
    log_mixture = math.lgamma(hits + 1) + math.lgamma(misses + 1) - math.lgamma(total + 2)
    log_bound = log_mixture + math.log(FALSE_ALARM_RATE)
    low, high = 0.0, hits / total
    for _ in range(BISECTIONS):
        share = (low + high) / 2
        log_likelihood = hits * math.log(share) + (misses and misses * math.log1p(-share))
        low, high = (low, share) if log_likelihood > log_bound else (share, high)
    return low


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
    mean_x, mean_y = math.fsum(xs) / n, math.fsum(ys) / n
    offsets = [(x - mean_x, y - mean_y) for x, y in zip(xs, ys, strict=True)]
    spread_x = math.fsum(x * x for x, _ in offsets)
    spread_y = math.fsum(y * y for _, y in offsets)
    if not spread_x or not spread_y:
        return None
    together = math.fsum(x * y for x, y in offsets) / math.sqrt(spread_x * spread_y)
    return max(-1.0, min(1.0, together))
