"""The unit costs: each layer is measured around the server's own calls, and the table shows all."""

import pytest
from support.servers import loaded

import benchmarks.layer_costs
from assay.api.components import components_of
from assay.served_model import Ready
from assay.settings import Settings
from benchmarks.layer_costs import Layers, summarise
from benchmarks.unit_costs import table


async def test_every_layer_has_a_cost_and_a_size(
    reference_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks.layer_costs, "ITEMS", 16)
    monkeypatch.setattr(benchmarks.layer_costs, "STORED", 1_000)
    async with loaded(reference_settings) as app:
        served = components_of(app).service.find("reference")
        assert isinstance(served.state, Ready)
        costs = await Layers(served, served.state).measure(1)
    assert {cost.layer for cost in costs} == {"parse", "prepare", "cache", "batch", "reply"}
    assert len({(cost.layer, cost.quantity) for cost in costs}) == len(costs) == 16
    assert all(0 < cost.low <= cost.value <= cost.high for cost in costs)
    assert len(list(table(costs))) == 2 + len(costs)


def test_a_row_has_the_median_and_the_range() -> None:
    cost = summarise("cache", "a raw", "bytes", [3.0, 1.0, 2_000.0])
    assert (cost.value, cost.low, cost.high) == (3.0, 1.0, 2_000.0)
    assert list(table([cost]))[-1] == "| cache | a raw | 3 bytes | 1 to 2,000 |"
