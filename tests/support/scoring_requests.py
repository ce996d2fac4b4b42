"""Asking a served app for scores."""

import httpx2


async def post(client: httpx2.AsyncClient, texts: list[str], **more: object) -> dict:
    items = [{"text": text, "id": f"i{n}"} for n, text in enumerate(texts)]
    answer = await client.post("/v1/score", json={"model": "scripted", "items": items, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()
