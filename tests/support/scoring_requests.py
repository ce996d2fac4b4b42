"""Scoring requests to a served app."""

from typing import Any

import httpx2
import pytest

from assay.scoring.service import ScoreCall, ScoringService
from assay.types import ItemResult, ScoreReply


async def post(client: httpx2.AsyncClient, texts: list[str], **more: object) -> dict[str, Any]:
    """Score texts with the scripted model and return the reply."""
    items = [{"text": text, "id": f"i{n}"} for n, text in enumerate(texts)]
    answer = await client.post("/v1/score", json={"model": "scripted", "items": items, **more})
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def record_calls(monkeypatch: pytest.MonkeyPatch) -> list[ScoreCall]:
    """Return a list to which each call of the scoring service is added."""
    calls: list[ScoreCall] = []
    scored = ScoringService.score

    async def score(service: ScoringService, call: ScoreCall) -> ScoreReply:
        calls.append(call)
        return await scored(service, call)

    monkeypatch.setattr(ScoringService, "score", score)
    return calls


def item_result(**fields: Any) -> ItemResult:
    """Return the result of an item, with these fields in place of the usual ones."""
    usual: dict[str, Any] = {
        "index": 0, "id": None, "group": None, "status": "ok", "score": 0.5, "raw": 0.5,
        "channels": {}, "flags": [], "tokens": 7, "source": "computed", "details": {},
        "error": None,
    }  # fmt: skip
    return ItemResult(**{**usual, **fields})
