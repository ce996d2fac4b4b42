"""The version of a model that a run keeps: for the callers of one key alone."""

import httpx2
from fastapi import FastAPI

from assay.api.components import components_of
from assay.runs.steps import RunStep
from assay.types import Caller

SECOND = {"model": "scripted@2"}


async def test_a_run_keeps_a_version_for_its_own_caller_alone(
    client: httpx2.AsyncClient, app: FastAPI
) -> None:
    service, run = components_of(app).service, RunStep("shared name", None)
    first, second = Caller("first"), Caller("second")
    assert service.find("scripted", run, first).id == "scripted@1"
    await client.post("/v1/models?wait=30", json={**SECOND, "default": True})
    assert service.find("scripted", run, first).id == "scripted@1"
    assert service.find("scripted", run, second).id == "scripted@2"
