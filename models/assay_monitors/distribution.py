"""How scores are spread, column by column: the shares of a heat map's cells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assay_monitors.moments import Moments
from assay_monitors.sketch import Sketch
from assay_monitors.summaries import Summary

ROWS = 24
# Of all scores, what may lie outside the rows at either end; it counts in the outermost row.
TAIL = 0.002
# Around a single value, rows reach this far up and down.
ALONE = 0.5
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Distribution:
    """The spread of the scores by column. `edges` rise, one more than there are rows; of a column
    `shares` has for each row the share of its scores, to 2 % of a score's magnitude. The outermost
    rows hold what lies beyond them too. A column without scores has no rows.
    """

    edges: list[float]
    shares: list[list[float]]


def distribution(columns: Sequence[Summary], rows: int = ROWS) -> Distribution | None:
    """The spread of the scores, over the range of all but the outermost; None of no scores."""
    scores, extent = Sketch(), Moments()
    for column in columns:
        scores.merge(column.scores)
        extent.merge(column.score)
    if not extent.count:
        return None
    low, high = _range(scores, extent)
    edges = [low + (high - low) * row / rows for row in range(rows + 1)]
    return Distribution(edges, [_shares(column, low, high, rows) for column in columns])


def _range(scores: Sketch, extent: Moments) -> tuple[float, float]:
    low = max(extent.low, scores.quantile(TAIL) or 0.0)
    high = min(extent.high, scores.quantile(1 - TAIL) or 0.0)
    if high > low:
        return low, high
    return low - ALONE, low + ALONE


def _shares(column: Summary, low: float, high: float, rows: int) -> list[float]:
    if not column.score.count:
        return []
    shares, height = [0.0] * rows, (high - low) / rows
    for begin, end, count in column.scores.masses():
        # No score lies outside the column's extremes, whatever the bounds of its bucket.
        begin, end = max(begin, column.score.low), min(end, column.score.high)
        for row, part in _parts((begin - low) / height, (end - low) / height, rows):
            shares[row] += part * count / column.score.count
    return [round(share, DIGITS) for share in shares]


def _parts(begin: float, end: float, rows: int) -> Iterator[tuple[int, float]]:
    """How what lies evenly between two heights, in rows, falls upon the rows."""
    first, last = (max(0, min(rows - 1, int(height))) for height in (begin, end))
    if first == last or end <= begin:
        yield first, 1.0
        return
    for row in range(first, last + 1):
        bottom = begin if row == first else row
        top = end if row == last else row + 1
        yield row, max(0.0, top - bottom) / (end - begin)
