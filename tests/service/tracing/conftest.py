"""An exporter in memory in the place of OTLP's, and the spans that it received."""

from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext
from support.doubles import Gate, ScriptedModel

import assay.tracing.exporting
from assay.settings import Settings


class Spans:
    """The spans of one server; read them after its lifespan, which sends the last of them."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def below(self, parent: ReadableSpan) -> list[str]:
        """Return the names of a span's children."""
        return [span.name for span in self.all if parent_id(span) == id_of(parent)]


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def id_of(span: ReadableSpan) -> int:
    return context_of(span).span_id


def parent_id(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def links_of(span: ReadableSpan) -> set[int]:
    """Return the ids of the linked spans."""
    return {link.context.span_id for link in span.links}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    received = Spans()
    monkeypatch.setattr(assay.tracing.exporting, "OTLPSpanExporter", lambda: received.exporter)
    return received


@pytest.fixture
def traced(scripted_settings: Settings) -> Settings:
    """Settings that serve the scripted model with traces."""
    return scripted_settings.model_copy(update={"traces": True})


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate that holds the forward passes of the scripted model."""
    gate = Gate()
    monkeypatch.setattr(ScriptedModel, "predict", lambda _, inputs: gate(inputs))
    return gate
