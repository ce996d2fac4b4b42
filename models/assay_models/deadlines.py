"""The deadline of the computation that runs in this context, for models that call other servers."""

import math
from collections.abc import Callable
from contextvars import ContextVar

_latest: ContextVar[Callable[[], float]] = ContextVar("_latest", default=lambda: math.inf)


def latest() -> float:
    """Return the monotonic time in seconds after which no caller waits; infinity without one.

    It may move to later while a batch is computed: one more caller may wait for an input of it.
    """
    return _latest.get()()


def set_latest(deadline: Callable[[], float]) -> None:
    """Set the deadline of the current context: a task has a context of its own."""
    _latest.set(deadline)
