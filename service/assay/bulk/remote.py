"""Scoring on a server, through the client package."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

from assay.bulk.lines import (
    BatchTooLarge,
    Halted,
    Identity,
    ItemsRefused,
    Outcome,
    Scorer,
    refusals,
)
from assay.results import ItemFailure, ItemResult, Source
from assay_client import (
    APIStatusError,
    AssayError,
    AsyncClient,
    InvalidRequestError,
    RateLimitError,
    RequestTooLargeError,
    Result,
)
from assay_models.base import Options

BUSY_SECONDS = 1.0


@asynccontextmanager
async def remote_scorer(client: AsyncClient, model: str, options: Options) -> AsyncIterator[Scorer]:
    """A scorer that has the client's connections for as long as it is used."""
    async with client:
        yield RemoteScorer(client, model, options)


@dataclass(frozen=True, slots=True)
class RemoteScorer:
    """Scores batches with a server's model."""

    client: AsyncClient
    model: str
    options: Options

    async def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """One outcome for each item. Waits while the server has no room."""
        while True:
            try:
                reply = await self.client.score(
                    self.model,
                    items,
                    options=asdict(self.options),
                    on_error="none",
                    priority="bulk",
                )
            except RateLimitError as error:
                await asyncio.sleep(error.retry_after or BUSY_SECONDS)
            except AssayError as error:
                raise _translated(error) from error
            else:
                identity = Identity(reply.model, reply.fingerprint)
                return [Outcome(_result(one), identity) for one in reply.results]


def _result(result: Result) -> ItemResult:
    error = result.error
    return ItemResult(
        index=result.index,
        id=result.id,
        group=result.group,
        status=result.status,
        score=result.score,
        raw=result.raw,
        channels=dict(result.channels),
        flags=list(result.flags),
        tokens=result.tokens or 0,
        source=cast(Source | None, result.source),
        details=dict(result.details),
        error=ItemFailure(error.code, error.detail) if error else None,
    )


def _translated(error: AssayError) -> Exception:
    if isinstance(error, InvalidRequestError) and (refused := refusals(error.errors)):
        return ItemsRefused(refused)
    if isinstance(error, RequestTooLargeError):
        return BatchTooLarge(error.detail)
    if isinstance(error, APIStatusError):
        detail = f"the server says {error.status} {error.code}: {error.detail}"
        return Halted(detail, error.hint, misused=400 <= error.status < 500)
    return Halted(str(error))
