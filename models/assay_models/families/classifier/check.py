"""Inputs whose raws are known in part, to be computed before a model is served."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assay_models.base import Input, Raw


@dataclass(frozen=True, slots=True)
class Check:
    """Inputs, and a function that raises `CardError` if their raws, in order, are wrong."""

    inputs: tuple[Input, ...]
    verify: Callable[[Sequence[Raw]], None]
