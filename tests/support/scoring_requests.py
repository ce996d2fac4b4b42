"""Scoring requests to a served app."""

from typing import Any

import httpx2


async def post(client: httpx2.AsyncClient, texts: list[str], **more: object) -> dict[str, Any]:
    """Score texts with the scripted model and return the reply."""
    items = [{"text": text, "id": f"i{n}"} for n, text in enumerate(texts)]
    answer = await client.post("/v1/score", json={"model": "scripted", "items": items, **more})
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply
