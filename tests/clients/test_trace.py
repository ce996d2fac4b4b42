"""The trace of the calling program in the client's requests."""

from typing import Any

from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider

HEADERS = {"traceparent", "tracestate", "baggage"}


def test_a_request_continues_the_callers_trace(server: Any, connect: Any) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("trainer")
    token = context.attach(baggage.set_baggage("team", "rl"))
    try:
        with tracer.start_as_current_span("step") as span:
            connect(server.url).score("code", [{"value": 1}])
    finally:
        context.detach(token)
    (received,) = server.received
    ids = span.get_span_context()
    flags = f"{ids.trace_flags:02x}"
    assert received.headers["traceparent"] == f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{flags}"
    assert received.headers["baggage"] == "team=rl"


def test_a_request_outside_of_a_span_has_no_trace_headers(server: Any, connect: Any) -> None:
    connect(server.url).score("code", [{"value": 1}])
    (received,) = server.received
    assert not HEADERS & set(received.headers)
