"""Conversion between lists, arrays of NumPy and tensors of torch, without importing either."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any


def to_list(values: Any) -> list[Any]:
    """Return the values as a list, nested where they have several dimensions."""
    return list(values.tolist() if hasattr(values, "tolist") else values)


def like(example: Any, values: Sequence[Any]) -> Any:
    """Return the values in the form of the example: a tensor on its device, an array, or a list.

    Numbers of a tensor or array of integers come back as floating-point numbers.
    """
    if hasattr(example, "new_tensor"):
        torch = sys.modules["torch"]
        kind = example.dtype if example.is_floating_point() else torch.get_default_dtype()
        return torch.tensor(values, dtype=kind, device=example.device)
    if hasattr(example, "tolist"):
        return sys.modules["numpy"].asarray(values)
    return list(values)


def known(value: Any, place: str) -> float | None:
    """Return a reward as a number; None for None and NaN.

    Raises:
        ValueError: it is infinite: a group's mean would be, too.
    """
    if value is None:
        return None
    number = float(value)
    if math.isinf(number):
        raise ValueError(f"{place} is infinite; a reward must be a finite number, None or NaN")
    return None if math.isnan(number) else number


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (n - 1); the latter is 0 for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2 or min(values) == max(values):
        return (values[0] if min(values) == max(values) else mean), 0.0
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1))
