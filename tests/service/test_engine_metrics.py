"""The series of calls to engines, fed by real calls."""

import pytest
from support.doubles import new_metrics, value
from support.engine_cards import engine_card
from support.engine_servers import EngineServer, vllm
from support.servers import free_port

from assay.metrics import Metrics
from assay_models.engines.client import open_engine
from assay_models.engines.errors import EngineError


async def test_metrics_of_engines_count_calls_retries_and_breakers_by_url() -> None:
    metrics = new_metrics()
    gone = f"http://127.0.0.1:{free_port()}"
    async with EngineServer(vllm).listening() as server:
        card = engine_card("vllm", gone, server.url)
        engine = open_engine(card, listener=metrics.engines)
        for _ in range(12):
            await engine.classify([[1, 2]])
        await engine.close()
    first, second = {"model": "remote@1", "url": "0"}, {"model": "remote@1", "url": "1"}
    assert value(metrics, "assay_engine_calls_total", **first, outcome="unavailable") == 5
    assert value(metrics, "assay_engine_retries_total", **first, outcome="unavailable") == 5
    assert value(metrics, "assay_engine_calls_total", **second, outcome="ok") == 12
    assert value(metrics, "assay_engine_call_seconds_count", **second) == 12
    assert value(metrics, "assay_engine_calls_in_flight", **second) == 0
    assert value(metrics, "assay_engine_breaker", **first) == 2
    assert value(metrics, "assay_engine_breaker", **second) == 0


def gauges(metrics: Metrics) -> set[str]:
    """Return the names of the gauges of engines that have a series."""
    return {
        family.name
        for family in metrics.registry.collect()
        if family.type == "gauge" and family.name.startswith("assay_engine") and family.samples
    }


async def test_metrics_of_engines_forget_the_gauges_of_an_unloaded_model() -> None:
    metrics = new_metrics()
    async with EngineServer(vllm).listening() as server:
        engine = open_engine(engine_card("vllm", server.url), listener=metrics.engines)
        await engine.classify([[1, 2]])
        await engine.close()
    place = {"model": "remote@1", "url": "0"}
    assert gauges(metrics) == {"assay_engine_breaker", "assay_engine_calls_in_flight"}
    metrics.forget_model("remote@1")
    assert not gauges(metrics)
    assert value(metrics, "assay_engine_calls_total", **place, outcome="ok") == 1


async def test_metrics_of_engines_name_no_url() -> None:
    metrics = new_metrics()
    engine = open_engine(
        engine_card("vllm", "http://127.0.0.1:9", retries=0), listener=metrics.engines
    )
    with pytest.raises(EngineError):
        await engine.classify([[1]])
    await engine.close()
    labels = {
        label
        for family in metrics.registry.collect()
        if family.name.startswith("assay_engine")
        for sample in family.samples
        for label in sample.labels.values()
    }
    assert not any("127.0.0.1" in label for label in labels)
