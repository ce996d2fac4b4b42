"""Preemption points: the places at which a long `prepare` gives way to other work, or ends."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


def _go_on(tokens: int, inputs: int) -> None:
    """Do nothing: outside a server nothing else waits."""


preempt: ContextVar[Callable[[int, int], None]] = ContextVar("preempt", default=_go_on)
"""Called with tokens and inputs at each preemption point of this thread."""


def preemption_point(tokens: int = 0, inputs: int = 0) -> None:
    """Let other work go first where it is due; end here a `prepare` that nothing waits for.

    A family calls it in its loops over pieces of a text, claims, pairs or tests, so that only a few
    milliseconds lie between two calls. It may raise a `BaseException`, which no family catches.

    Args:
        tokens: tokens of the inputs made since the last call.
        inputs: their number.
    """
    preempt.get()(tokens, inputs)


def interruptible(values: Iterable[T]) -> Iterator[T]:
    """Yield the values, with a preemption point before each."""
    for value in values:
        preemption_point()
        yield value


@contextmanager
def preempted_by(hook: Callable[[int, int], None]) -> Iterator[None]:
    """Call `hook` at each preemption point of this thread."""
    token = preempt.set(hook)
    try:
        yield
    finally:
        preempt.reset(token)
