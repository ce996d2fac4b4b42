"""TracedBatcher: spans of waiting in the queue, of prediction, and of forward passes.

Several requests share a forward pass. Its span, `forward`, belongs to the trace of the first of
them and links to the spans of all; the `predict` span of each request links back to it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import Link, Span, SpanContext, Tracer

from assay.batching.batcher import DynamicBatcher
from assay.batching.entry import Entry, Outcome, Waiter
from assay.batching.executor import AsyncExecutor, InFlightBatch
from assay.tracing.calls import EngineCalls
from assay.tracing.spans import EndingSpan, EpochClock, is_sampled, set_error
from assay.types import Lane
from assay_models.base import Input, ItemError, Raw
from assay_models.trace_context import call_tracer


@dataclass(slots=True, eq=False)
class Caller:
    """One call of `compute`: its context, its entries, and the forward passes that it shared."""

    context: Context
    span: Span
    began: float
    entries: list[Entry] = field(default_factory=list)
    forwards: list[SpanContext] = field(default_factory=list)


_caller: ContextVar[Caller | None] = ContextVar("_caller", default=None)


class TracedExecutor(AsyncExecutor):
    """An executor whose awaited forward passes have spans: `record` is entered around each."""

    record: Callable[[InFlightBatch], AbstractContextManager[None]]

    async def _await(self, in_flight: InFlightBatch) -> list[Raw | ItemError]:
        with self.record(in_flight):
            return await super()._await(in_flight)


class TracedBatcher(DynamicBatcher):
    """A batcher that records spans; it forms the same batches.

    Args:
        tracer: makes the spans.
        options: see `DynamicBatcher`.
    """

    awaited_executor = TracedExecutor

    def __init__(self, *, tracer: Tracer, **options: Any) -> None:
        super().__init__(**options)
        self._tracer = tracer
        self._epoch = EpochClock(self._clock)
        self._callers: defaultdict[Entry, list[Caller]] = defaultdict(list)
        if isinstance(self._executor, TracedExecutor):
            self._executor.record = self._awaiting

    async def compute(
        self, inputs: Sequence[tuple[bytes, Input]], deadline: float, lane: Lane = "training"
    ) -> list[Outcome]:
        """See `DynamicBatcher.compute`. A call outside of a request has no spans."""
        span = trace.get_current_span()
        if not span.get_span_context().is_valid:
            return await super().compute(inputs, deadline, lane)
        caller = Caller(get_current(), span, self._clock())
        token = _caller.set(caller)
        try:
            return await super().compute(inputs, deadline, lane)
        finally:
            _caller.reset(token)
            if is_sampled(span) and caller.entries:
                self._record_phases(caller, lane)

    def _join(
        self, entry: Entry, waiter: Waiter, deadline: float, lane: Lane
    ) -> tuple[Entry, bool]:
        caller = _caller.get()
        if caller is not None:
            caller.entries.append(entry)
            self._callers[entry].append(caller)
        return super()._join(entry, waiter, deadline, lane)

    def _settle(self, entry: Entry, *outcome: Any) -> None:
        super()._settle(entry, *outcome)
        self._callers.pop(entry, None)

    def _finish(self, in_flight: InFlightBatch) -> None:
        if in_flight.live and not isinstance(self._executor, TracedExecutor):
            self._record_forward(in_flight)
        super()._finish(in_flight)

    def _record_forward(self, in_flight: InFlightBatch) -> None:
        """Record a forward pass that has ended on the device thread."""
        span, _ = self._start_forward(in_flight.live, in_flight.began or in_flight.submitted)
        self._describe_forward(span, in_flight)
        error = in_flight.error()
        if error is not None:
            set_error(span, error)
        span.end(self._epoch(in_flight.ended))

    @contextmanager
    def _awaiting(self, in_flight: InFlightBatch) -> Iterator[None]:
        """Record a forward pass that is awaited, and lend its trace to the calls of engines."""
        span, context = self._start_forward(in_flight.batch.entries, self._clock())
        token = call_tracer.set(EngineCalls(self._tracer, context) if context else None)
        try:
            with EndingSpan(span):
                try:
                    yield
                finally:
                    self._describe_forward(span, in_flight)
        finally:
            call_tracer.reset(token)

    def _callers_of(self, entries: Iterable[Entry]) -> list[Caller]:
        callers = [caller for entry in entries for caller in self._callers.get(entry, ())]
        return list(dict.fromkeys(callers))

    def _start_forward(self, entries: Iterable[Entry], began: float) -> tuple[Span, Context | None]:
        """Return the span of a forward pass and its context; no context without a traced request.

        It is sampled if any of its requests is.
        """
        callers = self._callers_of(entries)
        if not callers:
            return trace.INVALID_SPAN, None
        first = next((caller for caller in callers if is_sampled(caller.span)), callers[0])
        span = self._tracer.start_span("forward", first.context, start_time=self._epoch(began))
        return span, trace.set_span_in_context(span, first.context)

    def _describe_forward(self, span: Span, in_flight: InFlightBatch) -> None:
        """Link the span to the requests of its live entries, also those that joined meanwhile."""
        if not span.is_recording():
            return
        for caller in self._callers_of(in_flight.live):
            if is_sampled(caller.span):
                span.add_link(caller.span.get_span_context())
                caller.forwards.append(span.get_span_context())
        tokens = sum([entry.input.tokens for entry in in_flight.live])
        span.set_attributes(
            {
                "assay.model": self._name,
                "assay.batch.size": len(in_flight.live),
                "assay.batch.tokens": tokens,
            }
        )

    def _record_phases(self, caller: Caller, lane: Lane) -> None:
        """Record the request's `queue` span, up to the first of its forward passes, and `predict`.

        An entry that another request had brought earlier counts from the call on.
        """
        now = self._clock()
        starts = [entry.started for entry in caller.entries if entry.started is not None]
        started = max(caller.began, min(starts)) if starts else now
        attributes = {"assay.inputs": len(caller.entries), "assay.lane": lane}
        queue = self._tracer.start_span(
            "queue",
            caller.context,
            attributes=attributes,
            start_time=self._epoch(caller.began),
        )
        queue.end(self._epoch(started))
        if starts:
            links = [Link(forward) for forward in caller.forwards]
            predict = self._tracer.start_span(
                "predict",
                caller.context,
                links=links,
                attributes={"assay.inputs": len(starts), "assay.forwards": len(links)},
                start_time=self._epoch(started),
            )
            ended = [entry.finished if entry.value is not None else now for entry in caller.entries]
            predict.end(self._epoch(max(started, *ended)))
