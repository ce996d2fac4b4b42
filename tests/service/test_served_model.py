"""Readiness is a fact: a model is ready when it computes, and not a moment longer."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
import pytest
from support.doubles import Gate, ScriptedModel, new_metrics, one_input, value
from support.servers import Served

from assay import served_model as hosting_module
from assay.api.components import components_of
from assay.app import create_app
from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.entry import Outcome
from assay.metrics import Metrics
from assay.served_model import ServedModel
from assay.settings import Settings
from assay_models.base import Input, Raw
from assay_models.registry import Runtime
from assay_models.repository import ModelRepository


async def test_an_idle_model_is_probed_by_a_real_forward_pass(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        metrics = (await client.get("/metrics")).text
        assert 'assay_forwards_total{model="scripted@1",outcome="ok"} 0.0' in metrics
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


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Holds the scripted model's forward passes until it is opened."""
    held = Gate()
    held.open.set()

    def predict(_: ScriptedModel, inputs: Sequence[Input]) -> Sequence[Raw]:
        return held(inputs)

    monkeypatch.setattr(ScriptedModel, "predict", predict)
    yield held
    held.open.set()


@dataclass
class Clock:
    """The true clock, moved by the test."""

    moved: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.moved


@asynccontextmanager
async def hosting(
    settings: Settings, clock: Clock, on_death: Callable[[str], None], metrics: Metrics
) -> AsyncIterator[ServedModel]:
    """The scripted model, loaded, alone."""
    repository = ModelRepository(settings.repository)
    entry = repository.find("scripted")
    served = ServedModel(
        entry=entry,
        limits=BatchLimits(1000, 8, 1000),
        metrics=metrics,
        clock=clock,
        on_death=on_death,
    )
    served.start(repository, Runtime(), asyncio.Lock())
    assert await served.loaded()
    yield served
    await served.close(30.0)


@pytest.fixture
async def alone(scripted_settings: Settings) -> AsyncIterator["Alone"]:
    told: list[str] = []
    clock, metrics = Clock(), new_metrics()
    async with hosting(scripted_settings, clock, told.append, metrics) as served:
        yield Alone(served, served.require_ready().batcher, clock, told, metrics)


@dataclass
class Alone:
    served: ServedModel
    batcher: DynamicBatcher
    clock: Clock
    told: list[str]
    metrics: Metrics

    def ask(self, name: str) -> asyncio.Task[list[Outcome]]:
        return asyncio.create_task(self.batcher.compute([one_input(name)], self.clock() + 1e6))

    async def computing(self, gate: Gate, name: str) -> asyncio.Task[list[Outcome]]:
        """A caller whose input the device computes until the gate opens."""
        gate.open.clear()
        gate.entered.clear()
        caller = self.ask(name)
        assert await asyncio.to_thread(gate.entered.wait, 30)
        return caller


async def test_however_many_ask_there_is_one_probe_at_a_time(gate: Gate, alone: Alone) -> None:
    gate.open.clear()
    asking = [asyncio.create_task(alone.served.is_computing()) for _ in range(50)]
    assert await asyncio.to_thread(gate.entered.wait, 30)
    assert alone.batcher.pending_tokens == len("probe")
    gate.open.set()
    assert await asyncio.gather(*asking) == [True] * 50
    assert gate.batches == [["probe"]]


async def test_a_hung_probe_is_not_ready_and_not_asked_again(
    gate: Gate, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosting_module, "PROBE_SECONDS", 0.05)
    gate.open.clear()
    for _ in range(3):
        assert not await alone.served.is_computing()
    assert gate.batches == [["probe"]]
    assert alone.batcher.pending_tokens == len("probe")
    gate.open.set()
    assert await alone.served.is_computing()


async def test_a_device_at_work_is_ready_until_it_has_hung(gate: Gate, alone: Alone) -> None:
    await alone.ask("before")
    caller = await alone.computing(gate, "long")
    alone.clock.moved += 100.0
    assert await alone.served.is_computing(), "a long forward pass is no fault"
    assert gate.batches == [["before"], ["long"]]
    alone.clock.moved += 100.0
    assert not await alone.served.is_computing()
    assert alone.batcher.pending_tokens == 1, "no probe waits behind it"
    assert value(alone.metrics, "assay_model_ready", model="scripted@1") == 0
    gate.open.set()
    await caller
    assert await alone.served.is_computing()


async def test_a_success_long_ago_or_in_the_future_is_none(gate: Gate, alone: Alone) -> None:
    await alone.ask("before")
    for jump in (1000.0, -5000.0):
        alone.clock.moved += jump
        gate.batches.clear()
        assert await alone.served.is_computing()
        assert gate.batches == [["probe"]]


async def test_a_model_that_can_compute_no_more_is_told_of_once(alone: Alone) -> None:
    (task,) = (one for one in asyncio.all_tasks() if one.get_name() == "batcher scripted@1")
    task.cancel()
    await asyncio.wait({task})
    assert not await alone.served.is_computing()
    assert alone.told == ["scripted@1 can compute no more: its batcher was cancelled"]


async def test_a_batch_is_formed_by_what_the_model_says_it_costs(
    scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedModel, "cost", lambda self, inputs: 10**9)
    metrics = new_metrics()
    async with hosting(scripted_settings, Clock(), print, metrics) as served:
        await served.require_ready().batcher.compute(
            [one_input(n) for n in "abc"], time.monotonic() + 30
        )
    assert value(metrics, "assay_padded_tokens_total", model="scripted@1") == 3e9


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
        (model,) = components_of(app).service.models()
        assert await model.loaded()
        assert (await client.post("/v1/score", json=body)).status_code == 200
