"""Results that wait to be measured, and the bound of them."""

import threading
from collections.abc import Sequence
from typing import NamedTuple

from assay.runs.measures import PolicyResponse
from assay.runs.steps import RunStep
from assay.types import ItemResult
from assay_monitors.admission import Writer


class PendingResults(NamedTuple):
    """A request's results that wait to be measured."""

    step: RunStep
    model: str
    responses: Sequence[PolicyResponse]
    results: Sequence[ItemResult]
    characters: int
    writer: Writer


class Capacity:
    """Thread-safe count of the items and characters that may still wait."""

    def __init__(self, items: int, characters: int) -> None:
        self._items = items
        self._characters = characters
        self._lock = threading.Lock()

    def reserve(self, items: int, characters: int) -> bool:
        """Take a place for them; return False where there is none."""
        with self._lock:
            if items > self._items or characters > self._characters:
                return False
            self._items -= items
            self._characters -= characters
            return True

    def release(self, items: int, characters: int) -> None:
        """Give the place back."""
        with self._lock:
            self._items += items
            self._characters += characters
