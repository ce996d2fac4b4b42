"""What became of the items: how many were scored, and why the others were not."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any


class Failures:
    """Counts of one reward in one process. A pickled copy begins anew.

    Attributes:
        scored: items that have a score of their own.
        failed: items without one.
        substituted: those of them in whose place a number was put: the one that `options` names to
            the server, or that of a contract.
        reasons: how often each reason, a code of the server or the name of an error.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.scored = 0
        self.failed = 0
        self.substituted = 0
        self.reasons: Counter[str] = Counter()

    def add(self, scored: int, reasons: Iterable[str], substituted: int = 0) -> None:
        """One call's items: so many scored, one reason for each of the others."""
        found = Counter(reasons)
        with self._lock:
            self.scored += scored
            self.failed += sum(found.values())
            self.substituted += substituted
            self.reasons.update(found)

    def __repr__(self) -> str:
        return (
            f"Failures(scored={self.scored}, failed={self.failed}, "
            f"substituted={self.substituted}, reasons={dict(self.reasons)})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Failures, ()
