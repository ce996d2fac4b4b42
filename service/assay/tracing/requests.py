"""TracedAccess: the span of each request, which continues the caller's trace."""

from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from starlette.types import Message, Receive, Scope, Send

from assay.api.middleware import REJECTED, AccessMiddleware, Headers
from assay.api.ops import PROBE_PATHS
from assay.api.paths import route_path
from assay.tracing.spans import EndingSpan

UNTRACED_PATHS = PROBE_PATHS | {"/metrics"}


class TracedAccess(AccessMiddleware):
    """The outermost middleware, with a server span for each request but probes and scrapes.

    FastAPI's own span records the query as it was sent, and misses the names of the hot routes.

    Args:
        tracer: makes the spans.
        options: see `AccessMiddleware`.
    """

    def __init__(self, *app: Any, tracer: Tracer, **options: Any) -> None:
        super().__init__(*app, **options)
        self._tracer = tracer

    async def _serve(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        if route_path(scope) in UNTRACED_PATHS:
            await super()._serve(scope, receive, send, headers)
            return
        method, parent = scope["method"], _parent(scope)
        attributes = {"http.request.method": method}
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, attributes)

        async def send_traced(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= 500:
                    span.set_status(StatusCode.ERROR)
            await send(message)

        token = attach(trace.set_span_in_context(span, parent))  # with the caller's baggage
        try:
            with EndingSpan(span):
                await super()._serve(scope, receive, send_traced, headers)
                _name_by_route(span, scope)
        finally:
            detach(token)


def _name_by_route(span: Span, scope: Scope) -> None:
    """Name a span by its route; the path of a request that has none is a text of the caller's."""
    route = scope.get("route")
    if route is not None and route is not REJECTED:
        span.update_name(f"{scope['method']} {route.path}")
        span.set_attribute("http.route", route.path)


def _parent(scope: Scope) -> Context:
    """Return the context that the request's headers carry; an empty one if they carry none."""
    fields = propagate.get_global_textmap().fields
    carrier: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1")
        if name in fields:
            value = raw_value.decode("latin-1")
            # A list may be sent in several headers (RFC 9110, 5.3).
            carrier[name] = f"{carrier[name]},{value}" if name in carrier else value
    return propagate.extract(carrier, Context())
