"""The trace of an engine's call: the headers to send along, and the tracer that makes its span.

No tracing library is imported here: the executor that awaits a remote model sets the tracer.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class CallTrace:
    """One HTTP call of an engine: headers that continue the caller's trace, and the status."""

    headers: Mapping[str, str] = field(default_factory=dict)
    status_code: int | None = None


CallTracer = Callable[[str, str, int], AbstractContextManager[CallTrace]]
"""Traces a call with this method, to this URL, for this number of rows."""

call_tracer: ContextVar[CallTracer | None] = ContextVar("call_tracer", default=None)


def traced_call(method: str, url: str, rows: int) -> AbstractContextManager[CallTrace]:
    """Return a context in which to make one call; its span ends with it.

    Send the headers of the `CallTrace`, and set its `status_code`. An exception that leaves the
    context is recorded by its class, or by its `code` if it has one, and never by its text.

    Args:
        method: the HTTP method.
        url: the URL; only its host, port and path are recorded.
        rows: the rows of the call.
    """
    trace = call_tracer.get()
    return nullcontext(CallTrace()) if trace is None else trace(method, url, rows)
