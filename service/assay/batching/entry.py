"""Entry: one input waiting for its forward pass, with the callers that wait for it."""

import asyncio
import math
from dataclasses import dataclass, field
from typing import NamedTuple

from assay.errors import AssayError, DeadlineExceeded, EngineFailed, InferenceFailed, NonFiniteScore
from assay.types import Lane, Source
from assay_models.base import Input, ItemError, Raw
from assay_models.remote import RemoteCallFailed


class Outcome(NamedTuple):
    """The raw of one input or the error in its place, its source, and seconds of each phase."""

    value: Raw | AssayError
    source: Source
    queue_seconds: float = 0.0
    predict_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Waiter:
    """One caller of `compute`, woken when all its inputs are settled or its deadline passes."""

    woken: asyncio.Future[None]
    missing: int
    is_late: bool = False

    def settle_one(self) -> None:
        """Count one settled input; wake the caller after the last."""
        self.missing -= 1
        if not self.missing and not self.woken.done():
            self.woken.set_result(None)

    def expire(self) -> None:
        """Wake the caller because its deadline has passed."""
        self.is_late = True
        if not self.woken.done():
            self.woken.set_result(None)


@dataclass(slots=True, eq=False)
class Entry:
    """One input, from admission until it is settled.

    `virtual_start` (seconds of the queue's own time) and, between equal ones, `number` decide its
    place in its lane; both are fixed at admission. `ticket` identifies that place, 0 when it is
    not waiting. `started` is written by the executor, everything else in the event loop.
    """

    input: Input
    lane: Lane
    deadline: float
    enqueued: float
    key: bytes = b""
    waiters: list[Waiter] = field(default_factory=list)
    virtual_start: float = 0.0
    number: int = 0
    ticket: int = 0
    value: Raw | AssayError | None = None
    started: float | None = None
    finished: float = 0.0

    def is_wanted(self, now: float) -> bool:
        """Return whether computing it now would still answer a caller in time."""
        return self.value is None and bool(self.waiters) and self.deadline > now

    def outcome(self, shared: bool) -> Outcome:
        """Return the outcome, or a timeout error if the entry has not finished.

        Args:
            shared: whether an earlier caller had already asked for the same key.
        """
        source: Source = "shared" if shared else "computed"
        if self.value is None:
            late = DeadlineExceeded("the deadline passed while this item was computed")
            return Outcome(late, source)
        started = self.finished if self.started is None else self.started
        waited, computed = started - self.enqueued, self.finished - started
        return Outcome(self.value, source, max(0.0, waited), max(0.0, computed))


def value_of(result: Raw | ItemError) -> Raw | AssayError:
    """Return the raw of an input, or the error in its place."""
    if isinstance(result, ItemError):
        return item_failure(result)
    finite = all(map(math.isfinite, result))
    return result if finite else NonFiniteScore("the model gave NaN or infinity")


def item_failure(error: BaseException) -> AssayError:
    """Return the error of an item on which, alone, the model raised `error`."""
    if isinstance(error, ItemError):
        return InferenceFailed(error.detail, code=error.code)
    return InferenceFailed(f"the model raised {type(error).__name__}, even on this item alone")


def call_failure(error: RemoteCallFailed) -> AssayError:
    """Return the error of each item of a call to another server that failed as a whole."""
    return EngineFailed(
        error.detail, code=error.code, retryable=error.retryable, retry_after=error.retry_after
    )
