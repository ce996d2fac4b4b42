"""Counts of scored and failed items, with the reasons of the failures."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any


class Failures:
    """Counts of one reward in one process. A pickled copy starts at zero.

    Attributes:
        scored: items that have a score of their own.
        failed: items without one.
        substituted: failed items with a substitute: the number that `options` requires from the
            server, or that of a contract.
        reasons: the number of failures by reason, a code of the server or the name of an error.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.scored = 0
        self.failed = 0
        self.substituted = 0
        self.reasons: Counter[str] = Counter()

    def add(self, scored: int, reasons: Iterable[str], substituted: int = 0) -> None:
        """Add the items of one call: the number scored, and one reason for each of the others."""
        counts = Counter(reasons)
        with self._lock:
            self.scored += scored
            self.failed += sum(counts.values())
            self.substituted += substituted
            self.reasons.update(counts)

    def __repr__(self) -> str:
        return (
            f"Failures(scored={self.scored}, failed={self.failed}, "
            f"substituted={self.substituted}, reasons={dict(self.reasons)})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Failures, ()
