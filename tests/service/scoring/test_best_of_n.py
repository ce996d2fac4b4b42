"""Best-of-n over HTTP: confidence and abstention."""

from typing import Any

import pytest
from support.servers import Served

from assay.settings import Settings


async def rank(served: Served, settings: Settings, model: str, **body: Any) -> Any:
    async with served(settings) as client:
        reply = await client.post("/v1/best-of-n", json={"model": model, **body})
        return reply.status_code, reply.json()


@pytest.mark.parametrize(("min_confidence", "best"), [(None, 1), (0.65, 1), (0.75, None)])
async def test_it_abstains_below_the_minimum_confidence(
    served: Served, scripted_settings: Settings, min_confidence: float | None, best: int | None
) -> None:
    body = {"candidates": ["a", "aaa", "aa"], "min_confidence": min_confidence}
    _, reply = await rank(served, scripted_settings, "scripted", **body)
    assert reply["ranking"][0]["index"] == 1
    assert reply["ranking"][0]["confidence"] == pytest.approx(0.7)
    assert (reply["best"], reply["abstained"]) == (best, best is None)


async def test_a_single_scored_candidate_has_no_confidence(
    served: Served, scripted_settings: Settings
) -> None:
    body = {"candidates": ["a", "poison"], "min_confidence": 1.0}
    _, reply = await rank(served, scripted_settings, "scripted", **body)
    assert (reply["best"], reply["ranking"][0]["confidence"]) == (0, None)


async def test_confidence_of_an_uncalibrated_model_is_rejected_with_a_hint(
    served: Served,
) -> None:
    body = {"prompt": "a", "candidates": ["a", "b"], "min_confidence": 0.6}
    status, reply = await rank(served, Settings(models=("reference",)), "reference", **body)
    assert (status, reply["code"]) == (422, "invalid_request")
    assert "abstain_below" in reply["hint"]


@pytest.mark.parametrize("wrong", [0.4, 1.1, "much"])
async def test_a_malformed_confidence_is_rejected(
    served: Served, scripted_settings: Settings, wrong: object
) -> None:
    body = {"candidates": ["a"], "min_confidence": wrong}
    status, reply = await rank(served, scripted_settings, "scripted", **body)
    assert status == 422
    assert reply["errors"][0]["field"] == "min_confidence"
