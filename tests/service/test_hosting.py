"""Readiness is a fact: a model is ready when it computes, and not a moment longer."""

import asyncio
import threading
from collections.abc import Sequence

import httpx2
import pytest
from conftest import Served
from doubles import ScriptedModel

from assay import hosting
from assay.app import create_app
from assay.settings import Settings
from assay_models.base import Input, Raw


async def test_an_idle_model_is_probed_by_a_real_forward_pass(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        assert "assay_forwards_total{" not in (await client.get("/metrics")).text
        assert (await client.get("/readyz")).json() == {
            "ready": True,
            "models": {"scripted@1": "ready"},
        }
        metrics = (await client.get("/metrics")).text
        assert 'assay_forwards_total{model="scripted@1",outcome="ok"} 1.0' in metrics
        await client.get("/readyz")
        metrics = (await client.get("/metrics")).text
        assert 'assay_forwards_total{model="scripted@1",outcome="ok"} 1.0' in metrics, "still fresh"


async def test_a_model_whose_forward_fails_is_not_ready_and_recovers(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = threading.Event()
    compute = ScriptedModel.predict

    def predict(self: ScriptedModel, inputs: Sequence[Input]) -> list[Raw]:
        if broken.is_set():
            raise RuntimeError("scripted")
        return compute(self, inputs)

    monkeypatch.setattr(ScriptedModel, "predict", predict)
    async with served(scripted_settings) as client:
        broken.set()
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["models"] == {"scripted@1": "not computing"}
        assert (await client.get("/healthz")).status_code == 200
        broken.clear()
        assert (await client.get("/readyz")).status_code == 200


async def test_a_hung_device_is_not_ready(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(self: ScriptedModel, inputs: Sequence[Input]) -> list[Raw]:
        assert released.wait(30)
        return [(0.0,) for _ in inputs]

    monkeypatch.setattr(ScriptedModel, "predict", hang)
    monkeypatch.setattr(hosting, "PROBE_SECONDS", 0.05)
    async with served(scripted_settings) as client:
        assert (await client.get("/readyz")).status_code == 503
        released.set()


async def test_a_dead_worker_is_not_ready(served: Served, scripted_settings: Settings) -> None:
    async with served(scripted_settings) as client:
        worker = next(
            task for task in asyncio.all_tasks() if task.get_name() == "batcher scripted@1"
        )
        worker.cancel()
        await asyncio.wait({worker})
        assert (await client.get("/readyz")).status_code == 503
        body = {"model": "scripted", "items": [{"text": "a"}]}
        assert (await client.post("/v1/score", json=body)).status_code == 503


async def test_a_loading_model_asks_to_come_back(
    scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = threading.Event()
    load = ScriptedModel.load.__func__

    def slow(cls: type[ScriptedModel], *parts: object) -> ScriptedModel:
        assert loading.wait(30)
        return load(cls, *parts)

    monkeypatch.setattr(ScriptedModel, "load", classmethod(slow))
    app = create_app(scripted_settings)
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://assay") as client,
    ):
        body = {"model": "scripted", "items": [{"text": "a"}]}
        answer = await client.post("/v1/score", json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "model_not_ready")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await client.get("/readyz")).json()["models"] == {"scripted@1": "loading"}
        loading.set()
        (model,) = app.state.service.models()
        assert await model.loaded()
        assert (await client.post("/v1/score", json=body)).status_code == 200
