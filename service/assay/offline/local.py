"""Scoring in this process: the served models, without the HTTP in front of them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from assay.api.components import components_of
from assay.app import create_app
from assay.errors import AssayError, InvalidRequest, Overloaded, RequestTooLarge
from assay.offline.lines import (
    BatchTooLarge,
    Halted,
    Identity,
    ItemsRefused,
    Outcome,
    Scorer,
    refusals,
)
from assay.scoring.best_of_n import BestOfNCall, best_of_n
from assay.scoring.service import ScoreCall, ScoringService
from assay.settings import Settings
from assay.types import BestOfNReply
from assay_models.base import Options

BATCH_SECONDS = 86_400.0
BUSY_SECONDS = 1.0


@asynccontextmanager
async def running_service(settings: Settings) -> AsyncIterator[ScoringService]:
    """The service as `create_app` composes it, started and stopped as a server would. A file of
    items belongs to no run, so none are kept.

    Raises:
        SettingsError: see `create_app`.
    """
    app = create_app(settings.model_copy(update={"runs": "off"}))
    service = components_of(app).service
    lifespan = app.router.lifespan_context(app)
    await lifespan.__aenter__()
    try:
        yield service
    finally:
        # An error of the caller is none of the service's: it stops as it always does.
        await lifespan.__aexit__(None, None, None)


async def ranked_here(settings: Settings, model: str, call: BestOfNCall) -> BestOfNReply:
    """The ranking, by a model that is loaded for it.

    Raises:
        SettingsError: see `create_app`.
        Halted: the model does not load, or the call is refused; the text says why.
    """
    async with running_service(settings) as service:
        served = service.find(model)
        if not await served.loaded():
            raise Halted(f"{model} could not be loaded: {served.failure}")
        try:
            return await best_of_n(service, call)
        except AssayError as error:
            raise Halted(error.detail, error.hint, misused=400 <= error.status < 500) from error


@asynccontextmanager
async def local_scorer(settings: Settings, model: str, options: Options) -> AsyncIterator[Scorer]:
    """A scorer with a model that is loaded for as long as it is used.

    Raises:
        SettingsError: see `create_app`.
        Halted: the model does not load; the text says why.
    """
    async with running_service(settings) as service:
        served = service.find(model)
        if not await served.loaded():
            raise Halted(f"{model} could not be loaded: {served.failure}")
        if served.require_ready().model.sees == "group":
            # A batch may end in the middle of a group, and the number would be another one.
            raise Halted(f"{model} looks at whole groups, a file is cut into batches", misused=True)
        yield LocalScorer(service, model, options)


@dataclass(frozen=True, slots=True)
class LocalScorer:
    """Scores batches with a model of this process."""

    service: ScoringService
    model: str
    options: Options

    async def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """One outcome for each item. Waits while the queue has no room."""
        call = ScoreCall(self.model, items, self.options, timeout=BATCH_SECONDS, lane="bulk")
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
