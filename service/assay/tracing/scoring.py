"""TracedScoringService: the attributes of a scoring request, and the span of its preparation."""

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Tracer

from assay.errors import AssayError
from assay.scoring.prepared_cache import PreparedItems
from assay.scoring.service import ScoreCall, ScoringService
from assay.tracing.spans import is_sampled
from assay.types import ScoreReply

Attributes = Mapping[str, str | int | list[str]]


class TracedScoringService(ScoringService):
    """The service, with what it does recorded in the request's span: never a text, never an id.

    Args:
        tracer: makes the spans.
        options: see `ScoringService`.
    """

    def __init__(self, *, tracer: Tracer, **options: Any) -> None:
        super().__init__(**options)
        self._tracer = tracer

    async def score(self, call: ScoreCall) -> ScoreReply:
        """See `ScoringService.score`."""
        span = trace.get_current_span()
        if not span.is_recording():
            return await super().score(call)
        span.set_attributes(_call_attributes(call))
        served = self._models.names.get(call.model)
        if served is not None:  # an unknown name is a text of the caller's
            span.set_attribute("assay.model", served.id)
        try:
            reply = await super().score(call)
        except AssayError as error:
            span.set_attribute("error.type", error.code)
            raise
        span.set_attribute("assay.model", reply.model)  # a pinned run may have another version
        span.set_attributes(_reply_attributes(reply))
        return reply

    async def _prepare(self, *parts: Any) -> list[PreparedItems]:
        if not is_sampled(trace.get_current_span()):
            return await super()._prepare(*parts)
        with self._tracer.start_as_current_span(
            "prepare", record_exception=False, set_status_on_exception=False
        ) as span:
            entries = await super()._prepare(*parts)
            span.set_attribute("assay.items", len(entries))
            span.set_attribute("assay.inputs", sum([len(entry.keys) for entry in entries]))
        return entries


def _call_attributes(call: ScoreCall) -> Attributes:
    attributes: dict[str, str | int | list[str]] = {
        "assay.items": len(call.items),
        "assay.lane": call.lane,
    }
    if call.run is not None:
        attributes["assay.run"] = call.run.id
        if call.run.step is not None:
            attributes["assay.step"] = call.run.step
    return attributes


def _reply_attributes(reply: ScoreReply) -> Attributes:
    usage = reply.usage
    attributes: dict[str, str | int | list[str]] = {
        "assay.tokens": usage.tokens,
        "assay.items.computed": usage.computed,
        "assay.items.cached": usage.cached,
        "assay.items.shared": usage.shared,
        "assay.items.rule": usage.rule,
        "assay.items.failed": usage.failed,
    }
    if usage.failed:
        errors = [result.error for result in reply.results]
        codes = {error.code for error in errors if error is not None}
        attributes["assay.item_errors"] = sorted(codes)
    return attributes
