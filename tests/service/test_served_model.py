"""ServedModel: readiness follows from forward passes that completed, and ends with them."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from support.doubles import Gate, ScriptedModel, new_metrics, text_input, value
from support.servers import Served

from assay import served_model
from assay.api.components import components_of
from assay.app import create_app
from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.entry import Outcome
from assay.metrics import Metrics
from assay.model_state import Loading
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
            "shutting_down": False,
            "models": {"scripted@1": "ready"},
            "redis": None,
        }
        metrics = (await client.get("/metrics")).text
        assert 'assay_forwards_total{model="scripted@1",outcome="ok"} 1.0' in metrics
        await client.get("/readyz")
        metrics = (await client.get("/metrics")).text
        assert 'assay_forwards_total{model="scripted@1",outcome="ok"} 1.0' in metrics, "still fresh"


async def test_a_model_whose_forward_fails_is_not_ready_and_recovers(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_broken = threading.Event()
    compute = ScriptedModel.predict

    def predict(self: ScriptedModel, inputs: Sequence[Input]) -> list[Raw]:
        if is_broken.is_set():
            raise RuntimeError("scripted")
        return compute(self, inputs)

    monkeypatch.setattr(ScriptedModel, "predict", predict)
    async with served(scripted_settings) as client:
        is_broken.set()
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["models"] == {"scripted@1": "not computing"}
        assert (await client.get("/healthz")).status_code == 200
        is_broken.clear()
        assert (await client.get("/readyz")).status_code == 200


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Gate that blocks the scripted model's forward passes."""
    gate = Gate()
    gate.open.set()

    def predict(_: ScriptedModel, inputs: Sequence[Input]) -> Sequence[Raw]:
        return gate(inputs)

    monkeypatch.setattr(ScriptedModel, "predict", predict)
    yield gate
    gate.open.set()


@dataclass
class Clock:
    """The monotonic clock plus an offset that the test sets."""

    offset: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.offset


@asynccontextmanager
async def running_model(
    settings: Settings, clock: Clock, on_death: Callable[[str], None], metrics: Metrics
) -> AsyncIterator[ServedModel]:
    """Yield the scripted model, loaded, without a server."""
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
async def running(scripted_settings: Settings) -> AsyncIterator["RunningModel"]:
    deaths: list[str] = []
    clock, metrics = Clock(), new_metrics()
    async with running_model(scripted_settings, clock, deaths.append, metrics) as served:
        yield RunningModel(served, served.require_ready().batcher, clock, deaths, metrics)


@dataclass
class RunningModel:
    served: ServedModel
    batcher: DynamicBatcher
    clock: Clock
    deaths: list[str]
    metrics: Metrics

    def compute(self, name: str) -> asyncio.Task[list[Outcome]]:
        return asyncio.create_task(self.batcher.compute([text_input(name)], self.clock() + 1e6))

    async def start_computing(self, gate: Gate, name: str) -> asyncio.Task[list[Outcome]]:
        """Start a call whose input the device computes until the gate opens."""
        gate.open.clear()
        gate.entered.clear()
        caller = self.compute(name)
        assert await asyncio.to_thread(gate.entered.wait, 30)
        return caller


async def test_a_model_that_waits_to_load_does_not_load_when_closed(
    scripted_settings: Settings,
) -> None:
    repository = ModelRepository(scripted_settings.repository)
    served = ServedModel(
        entry=repository.find("scripted"),
        limits=BatchLimits(1000, 8, 1000),
        metrics=new_metrics(),
        clock=Clock(),
    )
    load_lock = asyncio.Lock()
    async with load_lock:
        served.start(repository, Runtime(), load_lock)
        await asyncio.sleep(0)
        await served.close(30.0)
    assert not await served.loaded()
    assert served.state == Loading()


async def test_a_model_whose_fingerprint_fails_has_started_no_batcher(
    scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def fail(*_: object) -> str:
        raise RuntimeError("no fingerprint")

    monkeypatch.setattr(served_model, "plain_fingerprints", fail)
    monkeypatch.setattr(DynamicBatcher, "start", lambda batcher: started.append("started"))
    with pytest.raises(AssertionError):
        async with running_model(scripted_settings, Clock(), started.append, new_metrics()):
            pass
    assert started == []


async def test_concurrent_readiness_checks_share_one_probe(
    gate: Gate, running: RunningModel
) -> None:
    gate.open.clear()
    checks = [asyncio.create_task(running.served.is_computing()) for _ in range(50)]
    assert await asyncio.to_thread(gate.entered.wait, 30)
    assert running.batcher.pending_tokens == len("probe")
    gate.open.set()
    assert await asyncio.gather(*checks) == [True] * 50
    assert gate.batches == [["probe"]]


async def test_a_hung_probe_is_not_ready_and_not_repeated(
    gate: Gate, running: RunningModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_model, "PROBE_SECONDS", 0.05)
    gate.open.clear()
    for _ in range(3):
        assert not await running.served.is_computing()
    assert gate.batches == [["probe"]]
    assert running.batcher.pending_tokens == len("probe")
    gate.open.set()
    assert await running.served.is_computing()


async def test_a_computing_device_is_ready_until_it_hangs(
    gate: Gate, running: RunningModel
) -> None:
    await running.compute("before")
    caller = await running.start_computing(gate, "long")
    running.clock.offset += 100.0
    assert await running.served.is_computing(), "a long forward pass is not a failure"
    assert gate.batches == [["before"], ["long"]]
    running.clock.offset += 100.0
    assert not await running.served.is_computing()
    assert running.batcher.pending_tokens == 1, "no probe waits behind it"
    assert value(running.metrics, "assay_model_ready", model="scripted@1") == 0
    gate.open.set()
    await caller
    assert await running.served.is_computing()


async def test_a_success_long_ago_or_in_the_future_is_probed_again(
    gate: Gate, running: RunningModel
) -> None:
    await running.compute("before")
    for jump in (1000.0, -5000.0):
        running.clock.offset += jump
        gate.batches.clear()
        assert await running.served.is_computing()
        assert gate.batches == [["probe"]]


async def test_the_death_of_a_model_is_reported_once(running: RunningModel) -> None:
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "batcher scripted@1")
    task.cancel()
    await asyncio.wait({task})
    assert not await running.served.is_computing()
    assert running.deaths == ["scripted@1 can compute no more: its batcher was cancelled"]


async def test_a_batch_is_formed_by_the_models_own_cost(
    scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedModel, "cost", lambda self, inputs: 10**9)
    metrics = new_metrics()
    async with running_model(scripted_settings, Clock(), print, metrics) as served:
        await served.require_ready().batcher.compute(
            [text_input(n) for n in "abc"], time.monotonic() + 30
        )
    assert value(metrics, "assay_padded_tokens_total", model="scripted@1") == 3e9


async def test_a_model_with_a_dead_batcher_is_not_ready(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        worker = next(
            task for task in asyncio.all_tasks() if task.get_name() == "batcher scripted@1"
        )
        worker.cancel()
        await asyncio.wait({worker})
        assert (await client.get("/readyz")).status_code == 503
        body = {"model": "scripted", "items": [{"text": "a"}]}
        assert (await client.post("/v1/score", json=body)).status_code == 503


async def test_a_loading_model_is_refused_with_retry_after(
    scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = threading.Event()
    load = ScriptedModel.load

    def slow(cls: type[ScriptedModel], *parts: Any) -> ScriptedModel:
        assert loading.wait(30)
        return load(*parts)

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


async def test_a_model_that_never_loads_has_failed_and_the_others_are_served(
    scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(ServedModel, "_load", lambda *_: is_over.wait(60))
    settings = scripted_settings.model_copy(update={"load_timeout": 0.05})
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        (served,) = components_of(app).service.models()
        assert not await served.loaded()
        assert served.failure == "loading took more than 0.05 seconds"
        is_over.set()
