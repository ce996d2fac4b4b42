"""Small parts of spans: sampling, times, and errors without their texts."""

import time
from types import TracebackType

from opentelemetry.trace import Span, StatusCode

from assay.types import Clock


def is_sampled(span: Span) -> bool:
    """Return whether the trace of a span is recorded, be the span itself ended or not."""
    context = span.get_span_context()
    return context.is_valid and context.trace_flags.sampled


class EpochClock:
    """A converter of the monotonic clock's times to those of spans, nanoseconds since 1970.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._offset = time.time() - clock()

    def __call__(self, seconds: float) -> int:
        """Return the time of a span."""
        return int((seconds + self._offset) * 1e9)


def set_error(span: Span, error: BaseException) -> None:
    """Record an error by its code or class; its text may quote an item."""
    code = getattr(error, "code", None)
    span.set_attribute("error.type", code if isinstance(code, str) else type(error).__name__)
    span.set_status(StatusCode.ERROR)


class EndingSpan:
    """A context that ends a span, with the error that leaves it."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        return self._span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            set_error(self._span, error)
        self._span.end()
