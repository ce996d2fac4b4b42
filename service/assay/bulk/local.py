"""Scoring in this process: the served models, without the HTTP in front of them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from assay.app import create_app
from assay.bulk.lines import BatchTooLarge, Halted, Identity, ItemsRefused, Outcome, refusals
from assay.errors import AssayError, InvalidRequest, Overloaded, RequestTooLarge
from assay.scoring import ScoreCall, ScoringService
from assay.settings import Settings
from assay_models.base import Options

BATCH_SECONDS = 86_400.0
BUSY_SECONDS = 1.0


@asynccontextmanager
async def running_service(settings: Settings) -> AsyncIterator[ScoringService]:
    """The service as `create_app` composes it, started and stopped as a server would.

    Raises:
        SettingsError: see `create_app`.
    """
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        service = app.state.service
        assert isinstance(service, ScoringService)
        yield service


async def wait_until_loaded(service: ScoringService, model: str) -> None:
    """Wait for a model.

    Raises:
        Halted: it does not load; the text says why.
    """
    served = service.find(model)
    if not await served.loaded():
        raise Halted(f"{model} could not be loaded: {served.failure}")


@dataclass(frozen=True, slots=True)
class LocalScorer:
    """Scores batches with a model of this process."""

    service: ScoringService
    model: str
    options: Options

    async def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """One outcome for each item. Waits while the queue has no room."""
        call = ScoreCall(self.model, items, self.options, timeout=BATCH_SECONDS)
        while True:
            try:
                reply = await self.service.score(call)
            except Overloaded as error:
                await asyncio.sleep(error.retry_after or BUSY_SECONDS)
            except AssayError as error:
                raise _translated(error) from error
            else:
                identity = Identity(reply.model, reply.fingerprint)
                return [Outcome(result, identity) for result in reply.results]


def _translated(error: AssayError) -> Exception:
    if isinstance(error, InvalidRequest) and (refused := refusals(error.problems or [])):
        return ItemsRefused(refused)
    if isinstance(error, RequestTooLarge):
        return BatchTooLarge(error.detail)
    return Halted(error.detail, error.hint)
