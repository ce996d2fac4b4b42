"""Best-of-n over HTTP: confidence, and when the server abstains."""

from typing import Any

import pytest
from support.servers import Served

from assay.settings import Settings


async def ranked(served: Served, settings: Settings, model: str, **body: Any) -> Any:
    async with served(settings) as client:
        reply = await client.post("/v1/best-of-n", json={"model": model, **body})
        return reply.status_code, reply.json()


@pytest.mark.parametrize(("least", "best"), [(None, 1), (0.65, 1), (0.75, None)])
async def test_abstains_where_it_is_not_sure_of_the_best(
    served: Served, scripted_settings: Settings, least: float | None, best: int | None
) -> None:
    body = {"candidates": ["a", "aaa", "aa"], "min_confidence": least}
    _, reply = await ranked(served, scripted_settings, "scripted", **body)
    assert reply["ranking"][0]["index"] == 1
    assert reply["ranking"][0]["confidence"] == pytest.approx(0.7)
    assert (reply["best"], reply["abstained"]) == (best, best is None)


async def test_one_candidate_is_compared_with_none(
    served: Served, scripted_settings: Settings
) -> None:
    body = {"candidates": ["a", "poison"], "min_confidence": 1.0}
    _, reply = await ranked(served, scripted_settings, "scripted", **body)
    assert (reply["best"], reply["ranking"][0]["confidence"]) == (0, None)


async def test_confidence_of_a_model_that_has_none_is_refused_with_a_way_out(
    served: Served,
) -> None:
    body = {"prompt": "a", "candidates": ["a", "b"], "min_confidence": 0.6}
    status, reply = await ranked(served, Settings(models=("reference",)), "reference", **body)
    assert (status, reply["code"]) == (422, "invalid_request")
    assert "abstain_below" in reply["hint"]


@pytest.mark.parametrize("wrong", [0.4, 1.1, "much"])
async def test_a_confidence_that_is_none_is_refused(
    served: Served, scripted_settings: Settings, wrong: object
) -> None:
    body = {"candidates": ["a"], "min_confidence": wrong}
    status, reply = await ranked(served, scripted_settings, "scripted", **body)
    assert status == 422
    assert reply["errors"][0]["field"] == "min_confidence"
