"""Engine models that are loaded, promoted and unloaded while their engine does not answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from support import engine_models as engines
from support.engine_models import write_engine_model
from support.engine_servers import EngineServer, vllm
from support.servers import serving

from assay.api.components import components_of
from assay.app import create_app
from assay.served_model import ServedModel
from assay.settings import read_settings

SECOND = {"model": "tiny@2"}


@pytest.fixture
async def engine() -> AsyncIterator[EngineServer]:
    """An engine that both versions of `tiny` name."""
    async with EngineServer(vllm).listening() as server:
        yield server
        if server.gate is not None:
            server.gate.set()


@pytest.fixture
def app(tmp_path: Path, engine: EngineServer) -> FastAPI:
    """An app that serves `tiny@1`; its repository has `tiny@2` too."""
    for version in (1, 2):
        folder = tmp_path / "tiny" / str(version)
        folder.mkdir(parents=True)
        card = write_engine_model(folder, url=engine.url) / "card.toml"
        card.write_text(card.read_text().replace("version = 1", f"version = {version}"))
    settings = {"ASSAY_REPOSITORY": str(tmp_path), "ASSAY_MODELS": "tiny@1", "ASSAY_RUNS": "off"}
    return create_app(read_settings({**settings, "ASSAY_LOAD_TIMEOUT": "60"}))


async def begin_proof(
    client: httpx2.AsyncClient, app: FastAPI, engine: EngineServer
) -> ServedModel:
    """Load `tiny@2`, whose first proof does not end; return it."""
    engine.gate = asyncio.Event()
    before = len(engine.posts)
    await client.post("/v1/models", json=SECOND)
    await engine.wait_for_posts(before + 1)
    return components_of(app).service.find("tiny@2")


async def test_unload_during_the_first_proof_leaves_nothing(
    app: FastAPI, engine: EngineServer
) -> None:
    async with serving(app) as client:
        model = await begin_proof(client, app, engine)
        reply = await client.delete("/v1/models/tiny@2?wait=30")
        assert reply.json()["state"] == "unloaded"
        assert model._loading is not None
        assert model._loading.done()
        assert model.state.name == "unloaded"
        assert not [task for task in asyncio.all_tasks() if "_prove" in repr(task.get_coro())]


async def test_shutdown_during_the_first_proof_does_not_wait_for_it(
    app: FastAPI, engine: EngineServer
) -> None:
    async with serving(app) as client:
        model = await begin_proof(client, app, engine)
        await asyncio.wait_for(components_of(app).lifecycle.close(3600), 60)
        assert model.state.name == "loading"


async def test_load_as_default_of_an_unproven_engine_is_promoted_once_it_is_proven(
    app: FastAPI, engine: EngineServer
) -> None:
    async with serving(app) as client:
        engine.handler = engines.without_activation_option
        order = {**SECOND, "default": True}
        reply = (await client.post("/v1/models?wait=30", json=order)).json()
        assert (reply["state"], reply["default"]) == ("not_proven", False)
        second = components_of(app).service.find("tiny@2")
        engine.handler = vllm
        proofs = second._proofs
        assert proofs is not None
        await proofs._proof.prove()
        second._on_proven()
        assert (await client.get("/v1/models/tiny@2")).json()["default"]
        assert second in components_of(app).lifecycle.table.required()
