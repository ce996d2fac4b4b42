"""The export of spans: over a real socket, bounded, and only when it is asked for."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from support.doubles import new_metrics, value
from support.servers import Served, listening
from support.webhook_receivers import receiving

import assay.tracing.exporting
from assay.api.middleware import AccessMiddleware
from assay.batching.batcher import DynamicBatcher
from assay.errors import SettingsError
from assay.scoring.service import ScoringService
from assay.settings import Settings, read_settings
from assay.tracing.exporting import Tracing
from assay.tracing.parts import create_parts

SPANS = "assay_trace_spans_total"
SCORE_WITHOUT_TRACES = """
import asyncio, sys
from assay.api.components import components_of
from assay.app import create_app
from assay.settings import Settings

async def run():
    app = create_app(Settings(models=("reference",), runs="off"))
    async with app.router.lifespan_context(app):
        for served in components_of(app).service.models():
            assert await served.loaded()

asyncio.run(run())
loaded = {"opentelemetry.sdk.trace", "opentelemetry.exporter", "google.protobuf", "requests",
          "assay.tracing.batches", "assay.tracing.spans"} & set(sys.modules)
sys.exit(f"imported: {loaded}" if loaded else 0)
"""


class BlockedExporter(SpanExporter):
    """An exporter whose collector does not answer until the exporter is shut down."""

    def __init__(self) -> None:
        self.entered, self.ended = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        assert self.ended.wait(30)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.ended.set()


def test_spans_reach_a_collector_as_protobuf(
    reference_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as collector:
        collector.statuses.append((200, {}))
        address = urlsplit(collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{address.netloc}")
        with listening(reference_settings.model_copy(update={"traces": True})) as url:
            item = {"prompt": "one two", "response": "secret"}
            body = {"model": "reference", "items": [item]}
            assert httpx2.post(f"{url}/v1/score", json=body).status_code == 200
        post = collector.next_post()
    assert post.path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(post.body).resource_spans
    named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert named["service.name"] == "assay"
    (scope,) = resource.scope_spans
    spans = {span.name: span for span in scope.spans}
    assert set(spans) == {"POST /v1/score", "prepare", "queue", "predict", "forward"}
    server = spans.pop("POST /v1/score")
    assert not server.parent_span_id
    assert {span.parent_span_id for span in spans.values()} == {server.span_id}
    assert [link.span_id for link in spans["forward"].links] == [server.span_id]
    assert [link.span_id for link in spans["predict"].links] == [spans["forward"].span_id]
    assert b"secret" not in post.body


async def test_spans_beyond_the_bound_are_dropped_and_counted() -> None:
    metrics, exporter = new_metrics(), BlockedExporter()
    tracing = Tracing(exporter, metrics.spans, max_waiting=600)
    for _ in range(512):  # as many as the library sends at once
        tracing.tracer.start_span("span").end()
    assert await asyncio.to_thread(exporter.entered.wait, 30)
    for _ in range(700):
        tracing.tracer.start_span("span").end()
    assert value(metrics, SPANS, outcome="dropped") == 100
    exporter.ended.set()
    await tracing.close()
    assert value(metrics, SPANS, outcome="failed") == 1112


async def test_shutdown_ends_although_the_collector_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assay.tracing.exporting, "FLUSH_SECONDS", 0.05)
    metrics, exporter = new_metrics(), BlockedExporter()
    tracing = Tracing(exporter, metrics.spans)
    tracing.tracer.start_span("span").end()
    await tracing.close()
    assert exporter.entered.is_set()
    assert exporter.ended.is_set(), "its retries were ended"


async def test_a_server_scores_although_there_is_no_collector(
    served: Served, reference_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assay.tracing.exporting, "FLUSH_SECONDS", 0.05)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    async with served(reference_settings.model_copy(update={"traces": True})) as client:
        item = {"prompt": "one two", "response": "two"}
        reply = await client.post("/v1/score", json={"model": "reference", "items": [item]})
    assert reply.json()["usage"]["computed"] == 1


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),  # fewer than are sent at once
    ],
)
def test_a_variable_that_cannot_be_followed_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=variable.partition("_MAX")[0] + r"|OTEL_\*"):
        create_parts(True, new_metrics())


def test_a_missing_package_is_named_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", missing)
    monkeypatch.delitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter")
    monkeypatch.delitem(sys.modules, "assay.tracing.exporting")
    assert read_settings({"ASSAY_TRACES": "true"}).traces
    with pytest.raises(SettingsError, match="not installed") as raised:
        create_parts(True, new_metrics())
    assert raised.value.hint == "in a checkout of Assay: pip install '.[traces]'"


def test_without_traces_every_part_is_the_plain_class() -> None:
    parts = create_parts(False, new_metrics())
    plain = (AccessMiddleware, ScoringService, DynamicBatcher)
    assert (parts.access, parts.service, parts.batcher) == plain


def test_without_traces_no_tracing_library_is_imported() -> None:
    """FastAPI imports OpenTelemetry's interface, and Redis's client its metrics, if installed."""
    command = [sys.executable, "-c", SCORE_WITHOUT_TRACES]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
