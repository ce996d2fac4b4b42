"""`zip(..., strict=True)`, which Python 3.9 does not have."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any


def zip_strict(*columns: Any) -> Iterator[tuple[Any, ...]]:
    """Return the rows of columns of equal length.

    Raises:
        ValueError: their lengths differ, or one is a text, whose rows would be its characters.
    """
    if any(isinstance(column, str) for column in columns):
        raise ValueError("a list of texts is expected, with one for each row, not a single text")
    lengths = {len(column) for column in columns if isinstance(column, Sized)}
    if len(lengths) > 1:
        raise ValueError(f"columns of different lengths: {sorted(lengths)}")
    return zip(*columns)
