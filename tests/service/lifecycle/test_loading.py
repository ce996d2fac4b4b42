"""Loading, promoting and unloading by the routes: states, conflicts, and what they change."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest
from .conftest import AddCard
from fastapi import FastAPI
from support.doubles import ScriptedModel

from assay.api.components import components_of

ITEMS = {"items": [{"text": "four"}]}


async def test_load_promote_and_unload(client: httpx2.AsyncClient) -> None:
    reply = await client.post("/v1/models?wait=30", json={"model": "scripted@2"})
    assert (reply.status_code, reply.json()["state"]) == (200, "ready"), reply.text
    assert not reply.json()["default"]
    scored = await client.post("/v1/score", json={"model": "scripted", **ITEMS})
    assert scored.json()["model"] == "scripted@1"
    promoted = await client.post("/v1/models/scripted@2/promote")
    assert promoted.json()["default"]
    scored = await client.post("/v1/score", json={"model": "scripted", **ITEMS})
    assert scored.json()["model"] == "scripted@2"
    reply = await client.delete("/v1/models/scripted@1?wait=30")
    assert (reply.status_code, reply.json()["state"]) == (200, "unloaded")
    assert (await client.get("/v1/models/scripted@1")).json()["code"] == "model_not_found"
    assert (await client.get("/readyz")).json()["models"] == {"scripted@2": "ready"}
