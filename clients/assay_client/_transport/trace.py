"""Headers that continue the trace of the calling program, if it uses OpenTelemetry."""

from __future__ import annotations

import importlib
import sys


def trace_headers() -> dict[str, str]:
    """Return the headers of the current trace; none if there is no span.

    OpenTelemetry is no dependency: a program with a current span has imported it.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not trace.get_current_span().get_span_context().is_valid:
        return {}
    headers: dict[str, str] = {}
    importlib.import_module("opentelemetry.propagate").inject(headers)
    return headers
