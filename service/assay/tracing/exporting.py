"""Export of spans over OTLP/HTTP, as the standard `OTEL_*` variables say, within bounds."""

import asyncio
import logging
import os
import threading
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer
from prometheus_client import Counter

from assay import __version__
from assay.errors import SettingsError

MAX_WAITING = 8192
"""Spans that wait to be sent unless `OTEL_BSP_MAX_QUEUE_SIZE` is set; more are dropped."""
FLUSH_SECONDS = 5.0
"""Seconds in which to send the last spans at shutdown."""
PROTOCOL = "http/protobuf"
QUOTING = ("opentelemetry.baggage", "opentelemetry.trace")
"""Loggers that quote a malformed header of a request."""


class Tracing:
    """The tracer of one process, and the thread that sends its spans.

    Args:
        exporter: sends the spans.
        spans: counts spans by outcome.
        max_waiting: spans that wait to be sent.
    """

    def __init__(
        self, exporter: SpanExporter, spans: Counter, max_waiting: int = MAX_WAITING
    ) -> None:
        for name in QUOTING:
            logging.getLogger(name).setLevel(logging.ERROR)
        self._exporter = exporter
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(_BoundedProcessor(exporter, spans, max_waiting))
        self.tracer: Tracer = self._provider.get_tracer("assay", __version__)

    async def close(self) -> None:
        """Send the spans that still wait, for at most `FLUSH_SECONDS`."""
        flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, FLUSH_SECONDS)
        if flushing.is_alive():
            self._exporter.shutdown()  # a collector that does not answer is tried no more


def create_tracing(spans: Counter) -> Tracing:
    """Return the tracing that the standard variables describe.

    Args:
        spans: counts spans by outcome: sent, failed, dropped.

    Raises:
        SettingsError: they ask for another exporter or protocol than OTLP over HTTP, or one of
            them has no meaning.
    """
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") not in ("otlp", ""):
        raise SettingsError(
            "OTEL_TRACES_EXPORTER: the only exporter is otlp",
            hint="unset it; to send no traces unset ASSAY_TRACES",
        )
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if os.environ.get(variable, PROTOCOL) not in (PROTOCOL, ""):
            raise SettingsError(
                f"{variable}: spans are sent as {PROTOCOL} only",
                hint=f"unset it, and name the collector's port for {PROTOCOL}, mostly 4318",
            )
    try:
        max_waiting = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or MAX_WAITING)
        return Tracing(OTLPSpanExporter(), spans, max_waiting)
    except ValueError as error:
        raise SettingsError(
            f"the variables OTEL_* cannot be used: {error}", hint="OTEL_BSP_* are whole numbers"
        ) from error


class _CountingExporter(SpanExporter):
    """An exporter that counts the spans that were sent and those that could not be."""

    def __init__(self, exporter: SpanExporter, spans: Counter) -> None:
        self._exporter = exporter
        self._spans = spans
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; called on one thread."""
        self.taken += len(spans)
        result = self._exporter.export(spans)
        outcome = "sent" if result is SpanExportResult.SUCCESS else "failed"
        self._spans.labels(outcome).inc(len(spans))
        return result

    def shutdown(self) -> None:
        """Stop sending."""
        self._exporter.shutdown()


class _BoundedProcessor(SpanProcessor):
    """A processor that queues ended spans for the sending thread, and drops and counts the rest.

    The library's own queue drops the oldest spans in silence.
    """

    def __init__(self, exporter: SpanExporter, spans: Counter, max_waiting: int) -> None:
        self._exporter = _CountingExporter(exporter, spans)
        self._processor = BatchSpanProcessor(self._exporter, max_queue_size=max_waiting)
        self._dropped = spans.labels("dropped")
        self._max_waiting = max_waiting
        self._queued = 0

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span; called in the event loop."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._queued - self._exporter.taken >= self._max_waiting:
            self._dropped.inc()
            return
        self._queued += 1
        self._processor.on_end(span)

    def shutdown(self) -> None:
        """Send the queued spans."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send the queued spans now."""
        return self._processor.force_flush(timeout_millis)


def _resource() -> Resource:
    attributes = {"service.version": __version__}
    stated = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if "OTEL_SERVICE_NAME" not in os.environ and "service.name" not in stated:
        attributes["service.name"] = "assay"
    return Resource.create(attributes)
