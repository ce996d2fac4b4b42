"""Errors of the preparation pool, and the end of a task at a preemption point."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from assay.errors import AssayError, DeadlineExceeded, Overloaded, RequestTooLarge, ShuttingDown

RETRY_SECONDS = 1.0

Reason = Literal["expired", "abandoned", "shutdown"]

_LATE = partial(DeadlineExceeded, "the deadline passed while the items were prepared")
ERRORS: dict[Reason, Callable[[], AssayError]] = {
    "expired": _LATE,
    "abandoned": _LATE,
    "shutdown": partial(ShuttingDown, "the server stopped before the items were prepared"),
}
"""The error of a task that is dropped."""


class PreparationStopped(BaseException):
    """The end of a task at a preemption point; no family's own handlers stop it.

    Without an error, the task begins again later.
    """

    def __init__(self, error: AssayError | None) -> None:
        super().__init__()
        self.error = error


def too_large(size: int, room: int) -> RequestTooLarge:
    """Return the error of a request with more bytes than its lane may ever hold."""
    return RequestTooLarge(
        f"the items have {size} bytes, the limit of their lane is {room}",
        hint="split the request",
    )


def no_room(size: int, waiting: int) -> Overloaded:
    """Return the error of a request whose bytes do not fit beside those that wait."""
    return Overloaded(
        f"items of {waiting} bytes are waiting to be prepared, and {size} more do not fit",
        hint="try again after Retry-After, or send fewer items at once",
        retry_after=RETRY_SECONDS,
    )
