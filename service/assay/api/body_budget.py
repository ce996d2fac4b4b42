"""BodyBudget, the bound on the bytes of all bodies that the process holds together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from assay.errors import Overloaded

RETRY_SECONDS = 1.0


class BodyBudget:
    """The bytes of the bodies of all unanswered requests, and their bound.

    Args:
        max_bytes: the bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0

    @property
    def is_exceeded(self) -> bool:
        """Whether the process holds more than the bound."""
        return self.held > self.max_bytes

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Hold a body that came from no socket, such as a decompressed one, while it grows.

        Yields a function that adds bytes. It raises `Overloaded` if the process then holds more
        than the bound.
        """
        size = 0

        def add(count: int) -> None:
            nonlocal size
            size += count
            self.held += count
            if self.is_exceeded:
                raise self.refusal()

        try:
            yield add
        finally:
            self.held -= size

    def refusal(self) -> Overloaded:
        """Return the error for a request whose body has no room."""
        return Overloaded(
            f"the bodies of all requests together are larger than {self.max_bytes} bytes",
            hint="send fewer or smaller requests at once",
            retry_after=RETRY_SECONDS,
            status=503,
        )
