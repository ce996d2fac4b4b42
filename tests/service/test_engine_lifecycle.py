"""Models that an engine computes, loaded, shadowed and unloaded while the server runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from fastapi import FastAPI
from support.engine_models import without_activation_option, write_engine_model
from support.engine_servers import EngineServer, vllm
from support.servers import serving

from assay.api.components import components_of
from assay.app import create_app
from assay.settings import read_settings

WORDS = 'name = "words"\nversion = 1\nfamily = "reference"\n'


def words_app(folder: Path, engine: EngineServer) -> FastAPI:
    """Return an app that serves `words`, beside the card of an engine's model."""
    words, tiny = folder / "words" / "1", folder / "tiny" / "1"
    words.mkdir(parents=True)
    (words / "card.toml").write_text(WORDS)
    write_engine_model(tiny, url=engine.url)
    settings = {"ASSAY_REPOSITORY": str(folder), "ASSAY_MODELS": "words", "ASSAY_RUNS": "off"}
    return create_app(read_settings(settings))


@asynccontextmanager
async def words_server(folder: Path, engine: EngineServer) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of a server of `words_app`."""
    async with serving(words_app(folder, engine)) as client:
        yield client


async def test_model_whose_engine_hangs_is_unloaded_while_it_is_proven(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as engine, words_server(tmp_path, engine) as client:
        engine.gate = asyncio.Event()
        assert (await client.post("/v1/models", json={"model": "tiny@1"})).status_code == 202
        await engine.wait_for_posts(1)
        promoted = await client.post("/v1/models/tiny@1/promote")
        assert (promoted.status_code, promoted.json()["code"]) == (503, "model_not_ready")
        gone = await client.delete("/v1/models/tiny@1?wait=20")
        assert gone.json()["state"] == "unloaded"
        await engine.cut.wait()
        engine.gate = None
        again = await client.post("/v1/models?wait=30", json={"model": "tiny@1"})
        assert again.json()["state"] == "ready", again.text
        assert (await client.delete("/v1/models/tiny@1?wait=20")).json()["state"] == "unloaded"
        assert not [task for task in asyncio.all_tasks() if "Proof" in repr(task)]


async def test_unproven_model_is_not_promoted(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as engine, words_server(tmp_path, engine) as client:
        engine.status = 503
        await client.post("/v1/models?wait=30", json={"model": "tiny@1"})
        promoted = await client.post("/v1/models/tiny@1/promote")
        assert (promoted.status_code, promoted.json()["code"]) == (503, "model_not_ready")
        assert (await client.get("/readyz")).status_code == 200


async def test_engine_of_a_model_that_was_added_does_not_end_readiness(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as engine:
        app = words_app(tmp_path, engine)
        async with serving(app) as client:

            async def readiness() -> tuple[int, int, str]:
                ready, started = await client.get("/readyz"), await client.get("/startupz")
                state = ready.json()["models"]["tiny@1"]
                return ready.status_code, started.status_code, state.partition(":")[0]

            engine.handler = without_activation_option
            await client.post("/v1/models?wait=30", json={"model": "tiny@1"})
            assert await readiness() == (200, 200, "not proven")
            served = components_of(app).service.find("tiny@1")
            proofs = served._proofs
            assert proofs is not None
            engine.handler = vllm
            await proofs._proof.prove()
            proofs.was_proven = True
            served._on_proven()
            assert served in components_of(app).lifecycle.table.required()
            assert await readiness() == (200, 200, "ready")
            engine.handler = without_activation_option
            await proofs._proof.prove()
            assert await readiness() == (200, 200, "not proven")
