"""Parts: the classes of a process, plain or traced.

A traced part is a subclass of the plain one, so that a server without traces does no work for them
and imports no tracing library.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from assay.api.middleware import AccessMiddleware
from assay.batching.batcher import DynamicBatcher
from assay.errors import SettingsError
from assay.metrics import Metrics
from assay.scoring.service import ScoringService


async def _nothing_to_close() -> None:
    return


@dataclass(frozen=True, slots=True)
class Parts:
    """The constructors of the parts that may be traced, and `close`, which sends the last spans."""

    access: Callable[..., AccessMiddleware] = AccessMiddleware
    service: Callable[..., ScoringService] = ScoringService
    batcher: Callable[..., DynamicBatcher] = DynamicBatcher
    close: Callable[[], Awaitable[None]] = _nothing_to_close


def create_parts(traced: bool, metrics: Metrics) -> Parts:
    """Return the parts of a process.

    Args:
        traced: whether spans are recorded and sent where the `OTEL_*` variables say.
        metrics: the series of the process.

    Raises:
        SettingsError: OpenTelemetry's SDK is not installed, or its variables ask for an exporter
            that the server does not have.
    """
    if not traced:
        return Parts()
    try:
        from assay.tracing.exporting import create_tracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"ASSAY_TRACES needs a package that is not installed: {error.name}",
            hint="in a checkout of Assay: pip install '.[traces]'",
        ) from error
    from assay.tracing.batches import TracedBatcher
    from assay.tracing.requests import TracedAccess
    from assay.tracing.scoring import TracedScoringService

    tracing = create_tracing(metrics.spans)
    return Parts(
        access=partial(TracedAccess, tracer=tracing.tracer),
        service=partial(TracedScoringService, tracer=tracing.tracer),
        batcher=partial(TracedBatcher, tracer=tracing.tracer),
        close=tracing.close,
    )
