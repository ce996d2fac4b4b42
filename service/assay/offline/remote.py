"""Scoring on a server, through the client package."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

from assay.offline.scorer import (
    BatchTooLarge,
    Halted,
    Identity,
    ItemOutcome,
    ItemsRefused,
    Scorer,
    item_problems,
)
from assay.scoring.best_of_n import BestOfNCall
from assay.types import BestOfNReply, ItemFailure, ItemResult, RankedCandidate, Source
from assay_client import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AssayError,
    AsyncClient,
    RateLimitError,
    RequestTooLargeError,
    Result,
    UnprocessableEntityError,
)
from assay_models.base import Options

BUSY_SECONDS = 1.0


async def rank_remotely(client: AsyncClient, model: str, call: BestOfNCall) -> BestOfNReply:
    """Rank candidates with a server's model.

    Raises:
        Halted: the server cannot be reached or rejects the call; the text says why.
        ValueError: a text cannot be encoded as JSON.
    """
    async with client:
        try:
            reply = await client.best_of_n(
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
        model=reply.model,
        fingerprint=reply.fingerprint,
        best=reply.best,
        ranking=[RankedCandidate(**asdict(place)) for place in reply.ranking],
        ties=[list(tied) for tied in reply.ties],
        abstained=reply.abstained,
        results=[_result(result) for result in reply.results],
    )


@asynccontextmanager
async def remote_scorer(client: AsyncClient, model: str, options: Options) -> AsyncIterator[Scorer]:
    """Provide a scorer that keeps the client's connections open within the context."""
    async with client:
        yield RemoteScorer(client, model, options)


@dataclass(frozen=True, slots=True)
class RemoteScorer:
    """Scorer with a server's model."""

    client: AsyncClient
    model: str
    options: Options

    async def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[ItemOutcome]:
        """Return the outcome of each item, waiting while the server's queue is full."""
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
                raise _translate(error) from error
            else:
                identity = Identity(reply.model, reply.fingerprint)
                return [ItemOutcome(_result(result), identity) for result in reply.results]


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


def _translate(error: AssayError) -> Exception:
    if isinstance(error, UnprocessableEntityError) and (problems := item_problems(error.errors)):
        return ItemsRefused(problems)
    if isinstance(error, RequestTooLargeError):
        return BatchTooLarge(error.detail)
    return _halted(error)


def options_body(options: Options) -> dict[str, Any]:
    """Return the options as a request's JSON object."""
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
        detail = f"the server says {error.status_code} {error.code}: {error.detail}"
        return Halted(detail, error.hint, is_usage_error=400 <= error.status_code < 500)
    if isinstance(error, APITimeoutError):
        return Halted(str(error), "start the server, check the URL, or raise --timeout")
    if isinstance(error, APIConnectionError):
        return Halted(str(error), "start the server, or check the URL")
    return Halted(str(error))
