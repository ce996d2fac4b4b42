"""Best-of-n sampling that stops as soon as the server is confident of the best candidate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from assay_client._transport.arguments import drawn_rows
from assay_client.async_client import AsyncClient
from assay_client.client import Client
from assay_client.types import BestOfN


def best_of_n_until_confident(
    client: Client,
    model: str,
    draw: Callable[[int], Sequence[Any]],
    *,
    min_confidence: float,
    max_candidates: int = 16,
    batch_size: int = 4,
    **shared_fields: Any,
) -> tuple[BestOfN, list[Any]]:
    """Draw candidates of one prompt until the best is better than the next with enough confidence.

    After each batch all candidates are ranked again; the scores of earlier ones come from the
    server's cache.

    Args:
        client: a client of Assay.
        model: a model whose card is calibrated.
        draw: returns the given number of new candidates; fewer, or none, if it has no more.
        min_confidence: from 0.5 to 1, see `Client.best_of_n`.
        max_candidates: candidates in all.
        batch_size: candidates between two rankings.
        **shared_fields: the fields that all candidates share, such as `prompt`.

    Returns:
        The last ranking and its candidates. `best` is None if the model was not confident of any;
        `ranking` then begins with the best candidate so far.

    Raises:
        ValueError: nothing was drawn, or an argument is invalid.
        AssayError: as `Client.best_of_n`.
    """
    _check_counts(max_candidates, batch_size)
    candidates: list[Any] = []
    while True:
        new = drawn_rows(draw(min(batch_size, max_candidates - len(candidates))))
        candidates += new
        if not candidates:
            raise ValueError("draw gave no candidate")
        reply = client.best_of_n(model, candidates, min_confidence=min_confidence, **shared_fields)
        if is_confident(reply) or not new or len(candidates) >= max_candidates:
            return reply, candidates


async def best_of_n_until_confident_async(
    client: AsyncClient,
    model: str,
    draw: Callable[[int], Awaitable[Sequence[Any]]],
    *,
    min_confidence: float,
    max_candidates: int = 16,
    batch_size: int = 4,
    **shared_fields: Any,
) -> tuple[BestOfN, list[Any]]:
    """See `best_of_n_until_confident`; `draw` too is a coroutine function."""
    _check_counts(max_candidates, batch_size)
    candidates: list[Any] = []
    while True:
        new = drawn_rows(await draw(min(batch_size, max_candidates - len(candidates))))
        candidates += new
        if not candidates:
            raise ValueError("draw gave no candidate")
        reply = await client.best_of_n(
            model, candidates, min_confidence=min_confidence, **shared_fields
        )
        if is_confident(reply) or not new or len(candidates) >= max_candidates:
            return reply, candidates


def _check_counts(max_candidates: int, batch_size: int) -> None:
    for name, count in (("max_candidates", max_candidates), ("batch_size", batch_size)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1")


def is_confident(reply: BestOfN) -> bool:
    """Return whether the server chose a best candidate and estimated its confidence."""
    return reply.best is not None and reply.ranking[0].confidence is not None
