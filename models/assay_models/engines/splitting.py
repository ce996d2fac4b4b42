"""Splitting of a call that fails because of a few of its rows."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from assay_models.base import ItemError, Raw
from assay_models.engines.errors import EngineError

Row = TypeVar("Row")
Result = Raw | ItemError


async def compute_rows(
    rows: Sequence[Row],
    compute: Callable[[Sequence[Row]], Awaitable[Sequence[Result]]],
    *,
    size: Callable[[Row], int],
    max_rows: int,
    max_tokens: int,
) -> list[Result]:
    """Compute rows in calls of bounded size, and find the rows that no call succeeds with.

    A call of several rows that fails, possibly because of one of them, is split in halves until
    that row is alone; the row then gets the error. With b bad rows of n in one call there are at
    most 1 + 2 b ceil(log2 n) calls. Large parts come before small ones, so that a URL that answers
    half of them is not taken for a broken one.

    Args:
        rows: the rows, at least one.
        compute: computes some of them with one call.
        size: the tokens of a row.
        max_rows: rows of a call.
        max_tokens: tokens of a call, unless a single row has more.

    Returns:
        A raw or an error for each row, in order.

    Raises:
        EngineError: a call failed for a reason that is no row's, or every row failed and the engine
            refused none of them. It is the first error, which says most.
    """
    results: dict[int, Result] = {}
    first: EngineError | None = None
    last: EngineError | None = None
    parts = deque(_parts([size(row) for row in rows], max_rows, max_tokens))
    while parts:
        part = parts.popleft()
        try:
            values = await compute([rows[position] for position in part])
        except EngineError as error:
            if not error.may_be_one_row:
                raise (first or error) from error
            first = first or error
            half = len(part) // 2
            if half:
                parts += (part[:half], part[half:])
            else:
                results[part[0]] = ItemError(
                    error.code, f"{error.detail}, also with this item alone"
                )
                last = last if error.code == "engine_refused" else error
            continue
        results.update(zip(part, values, strict=True))
    if last is not None and all(_is_broken(result) for result in results.values()):
        raise last
    return [results[position] for position in range(len(rows))]


def _parts(sizes: Sequence[int], max_rows: int, max_tokens: int) -> Iterator[range]:
    """Yield the ranges of rows that fit in one call each."""
    start = tokens = 0
    for position, size in enumerate(sizes):
        is_full = position - start == max_rows or tokens + size > max_tokens
        if is_full and position > start:
            yield range(start, position)
            start, tokens = position, 0
        tokens += size
    yield range(start, len(sizes))


def _is_broken(result: Result) -> bool:
    return isinstance(result, ItemError) and result.code in (
        "engine_unavailable",
        "engine_bad_reply",
    )
