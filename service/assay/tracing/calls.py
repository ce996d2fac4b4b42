"""EngineCalls: the client spans of calls to inference engines, and the headers sent with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from assay.tracing.spans import EndingSpan
from assay_models.trace_context import CallTrace


class EngineCalls:
    """The tracer of one forward pass's calls.

    Args:
        tracer: makes the spans.
        context: that of the forward pass, with the baggage of its first request.
    """

    def __init__(self, tracer: Tracer, context: Context) -> None:
        self._tracer = tracer
        self._context = context

    @contextmanager
    def __call__(self, method: str, url: str, rows: int) -> Iterator[CallTrace]:
        """Yield the headers of a call, and end its span when it has ended."""
        address = urlsplit(url)
        span = self._tracer.start_span(
            method,
            self._context,
            SpanKind.CLIENT,
            {
                "http.request.method": method,
                "server.address": address.hostname or "",
                "server.port": address.port or (443 if address.scheme == "https" else 80),
                "url.path": address.path,
                "assay.batch.size": rows,
            },
        )
        call = CallTrace({})
        with EndingSpan(span):
            headers: dict[str, str] = {}
            propagate.inject(headers, trace.set_span_in_context(span, self._context))
            call.headers = headers
            yield call
            if call.status_code is not None:
                span.set_attribute("http.response.status_code", call.status_code)
                if call.status_code >= 400:
                    span.set_status(StatusCode.ERROR)
