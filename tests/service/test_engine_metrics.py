"""The series of calls to engines, fed by real calls."""

import pytest
from support.doubles import new_metrics, value
from support.engine_cards import engine_card
from support.engine_servers import EngineServer, vllm
from support.servers import free_port

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
