"""Distribution of scores by column: the shares of the cells of a heat map."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assay_monitors.moments import Moments
from assay_monitors.sketch import QuantileSketch
from assay_monitors.summaries import Summary

ROWS = 24
# The share of all scores that may lie outside the rows at either end; it counts in the outermost.
TAIL_SHARE = 0.002
# The half width of the range where all scores are the same value.
MIN_HALF_RANGE = 0.5
SHARE_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Distribution:
    """The distribution of the scores by column.

    `edges` rise, and there is one more of them than there are rows. For each column, `shares` has
    for each row the share of the column's scores, with an error of 2 % of a score's magnitude. The
    outermost rows hold the scores beyond them too. A column without scores has no rows.
    """

    edges: list[float]
    shares: list[list[float]]


def distribution(columns: Sequence[Summary], rows: int = ROWS) -> Distribution | None:
    """Return the distribution over the range of all but the outermost scores; None if none."""
    scores, moments = QuantileSketch(), Moments()
    for column in columns:
        scores.merge(column.scores)
        moments.merge(column.score)
    if not moments.count:
        return None
    low, high = _range(scores, moments)
    edges = [low + (high - low) * row / rows for row in range(rows + 1)]
    return Distribution(edges, [_shares(column, low, high, rows) for column in columns])


def _range(scores: QuantileSketch, moments: Moments) -> tuple[float, float]:
    low = max(moments.low, scores.quantile(TAIL_SHARE) or 0.0)
    high = min(moments.high, scores.quantile(1 - TAIL_SHARE) or 0.0)
    if high > low:
        return low, high
    return low - MIN_HALF_RANGE, low + MIN_HALF_RANGE


def _shares(column: Summary, low: float, high: float, rows: int) -> list[float]:
    if not column.score.count:
        return []
    shares, height = [0.0] * rows, (high - low) / rows
    for begin, end, count in column.scores.bucket_counts():
        # No score lies outside the column's minimum and maximum, whatever its bucket's bounds.
        begin, end = max(begin, column.score.low), min(end, column.score.high)
        for row, part in _overlaps((begin - low) / height, (end - low) / height, rows):
            shares[row] += part * count / column.score.count
    return [round(share, SHARE_DIGITS) for share in shares]


def _overlaps(begin: float, end: float, rows: int) -> Iterator[tuple[int, float]]:
    """Yield each row that an interval overlaps, and the share of the interval in it.

    The interval's ends are in units of rows.
    """
    first, last = (max(0, min(rows - 1, int(height))) for height in (begin, end))
    if first == last or end <= begin:
        yield first, 1.0
        return
    for row in range(first, last + 1):
        bottom = begin if row == first else row
        top = end if row == last else row + 1
        yield row, max(0.0, top - bottom) / (end - begin)
