"""The counts of requests in the table of models."""

from types import SimpleNamespace
from typing import Any, cast

from assay.lifecycle.table import ModelTable


async def test_requests_that_outlive_their_model_do_not_count_for_the_next_of_its_name() -> None:
    table = ModelTable()
    card = SimpleNamespace(name="m", version=1)
    old = cast(Any, SimpleNamespace(id="m@1", card=card))
    table.add(old)
    table.in_flight["m@1"] += 1
    table.remove(old)
    await table.idle(old, 0.0)  # the time to drain is over
    table.forget(old)
    table.in_flight["m@1"] -= 1
    assert table.in_flight["m@1"] == 0
    table.forget(old)
    assert "m@1" not in table.in_flight
