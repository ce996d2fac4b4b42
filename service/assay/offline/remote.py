"""Scoring on a server, through the client package."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

from assay.offline.lines import (
    BatchTooLarge,
    Halted,
    Identity,
    ItemsRefused,
    Outcome,
    Scorer,
    refusals,
)
from assay.scoring.best_of_n import BestOfNCall
from assay.types import BestOfNReply, ItemFailure, ItemResult, Ranked, Source
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


async def ranked_there(client: AsyncClient, model: str, call: BestOfNCall) -> BestOfNReply:
    """The ranking, by a server.

    Raises:
        Halted: the server is away or refuses; the text says why.
        ValueError: a text cannot be written as JSON.
    """
    async with client:
        try:
            found = await client.best_of_n(
                model,
                call.candidates,
                top_n=call.top_n,
                tie_margin=call.tie_margin,
                abstain_below=call.abstain_below,
                min_confidence=call.min_confidence,
                options=options_body(call.score.options),
                **call.shared,
            )
        except AssayError as error:
            raise _halted(error) from error
    return BestOfNReply(
        model=found.model,
        fingerprint=found.fingerprint,
        best=found.best,
        ranking=[Ranked(**asdict(place)) for place in found.ranking],
        ties=[list(tied) for tied in found.ties],
        abstained=found.abstained,
        results=[_result(one) for one in found.results],
    )


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
                    options=options_body(self.options),
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
    return _halted(error)


def options_body(options: Options) -> dict[str, Any]:
    """The options as a request says them."""
    body: dict[str, Any] = {"truncation": options.truncation, "raw": options.raw}
    for name, value in options.numbers:
        table, dot, key = name.partition(".")
        if dot:
            body.setdefault(table, {})[key] = value
        else:
            body[name] = value
    return body


def _halted(error: AssayError) -> Halted:
    if isinstance(error, APIStatusError):
        detail = f"the server says {error.status} {error.code}: {error.detail}"
        return Halted(detail, error.hint, misused=400 <= error.status < 500)
    return Halted(str(error))
