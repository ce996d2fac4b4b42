"""Sampling that stops early: candidates are drawn until the server is sure of the best."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from assay_client.async_client import AsyncClient
from assay_client.client import Client
from assay_client.types import BestOfN


def draw_until_sure(
    client: Client,
    model: str,
    draw: Callable[[int], Sequence[Any]],
    *,
    min_confidence: float,
    most: int = 16,
    at_once: int = 4,
    **shared_fields: Any,
) -> tuple[BestOfN, list[Any]]:
    """Draw candidates of one prompt until the best of them is trusted enough over the next.

    What was drawn before is ranked again with what is new; its scores come from the server's cache.

    Args:
        client: asks the server.
        model: one whose card is calibrated.
        draw: gives so many new candidates; fewer, or none, where it has no more.
        min_confidence: from 0.5 to 1, see `Client.best_of_n`.
        most: candidates in all.
        at_once: candidates between two looks.
        **shared_fields: what all candidates have in common, such as `prompt`.

    Returns:
        The last ranking and the candidates that it is of. `best` is None where the model was still
        not sure of any; `ranking` then tells which one it would have taken.

    Raises:
        ValueError: nothing was drawn.
        AssayError: as `Client.best_of_n`.
    """
    drawn: list[Any] = []
    while True:
        new = list(draw(min(at_once, most - len(drawn))))
        drawn += new
        if not drawn:
            raise ValueError("draw gave no candidate")
        reply = client.best_of_n(model, drawn, min_confidence=min_confidence, **shared_fields)
        if is_sure(reply) or not new or len(drawn) >= most:
            return reply, drawn


async def draw_until_sure_async(
    client: AsyncClient,
    model: str,
    draw: Callable[[int], Awaitable[Sequence[Any]]],
    *,
    min_confidence: float,
    most: int = 16,
    at_once: int = 4,
    **shared_fields: Any,
) -> tuple[BestOfN, list[Any]]:
    """As `draw_until_sure`, awaited: `draw` too is a coroutine function."""
    drawn: list[Any] = []
    while True:
        new = list(await draw(min(at_once, most - len(drawn))))
        drawn += new
        if not drawn:
            raise ValueError("draw gave no candidate")
        reply = await client.best_of_n(model, drawn, min_confidence=min_confidence, **shared_fields)
        if is_sure(reply) or not new or len(drawn) >= most:
            return reply, drawn


def is_sure(reply: BestOfN) -> bool:
    """Whether the server chose a best one and knows how far it may be trusted."""
    return reply.best is not None and reply.ranking[0].confidence is not None
