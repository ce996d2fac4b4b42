"""Runs belong to the key that made them: writes by other keys, new runs, and pins."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from support.doubles import value
from support.scoring_requests import post
from support.servers import serving

import assay.api.runs
import assay.api.v1
from assay.api.components import components_of
from assay.app import create_app
from assay.settings import Settings
from assay.types import SCOPES, Caller

TELEMETRY = {"step": 1, "values": {"kl": 0.5}}
GOLD = {"step": 1, "source": "tests", "gradient_norm": 1.0}
RUN = "/v1/runs/alice-run"


def caller_in_header(scope: Mapping[str, Any]) -> Caller:
    """Return the caller that the test's header names; `root` has the scope admin."""
    name = dict(scope["headers"]).get(b"x-test-caller", b"").decode()
    return Caller(name, SCOPES if name in ("root", "") else SCOPES - {"admin"})


@pytest.fixture
def app(scripted_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    for module in (assay.api.runs, assay.api.v1):
        monkeypatch.setattr(module, "caller_of", caller_in_header)
    return create_app(scripted_settings.model_copy(update={"runs": tmp_path / "runs.db"}))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(app) as client:
        yield client


def as_caller(client: httpx2.AsyncClient, name: str) -> httpx2.AsyncClient:
    client.headers["x-test-caller"] = name
    return client


@pytest.fixture
async def alices(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """A client of a server that keeps a run of alice."""
    await post(as_caller(client, "alice"), ["a"], run={"id": "alice-run", "step": 1})
    assert (await client.patch(RUN, json={"note": "mine"})).status_code == 200
    return client


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{RUN}/telemetry", TELEMETRY),
        ("POST", f"{RUN}/gold", GOLD),
        ("PATCH", RUN, {"note": "stop"}),
        ("PATCH", RUN, {"pinned": True}),
        ("PATCH", RUN, {"id": "taken"}),
        ("DELETE", RUN, None),
    ],
)
async def test_another_key_may_not_change_a_run_and_its_own_and_an_admin_may(
    alices: httpx2.AsyncClient, method: str, path: str, body: object
) -> None:
    refused = await as_caller(alices, "mallory").request(method, path, json=body)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "admin" in refused.json()["hint"]
    report = (await alices.get(RUN)).json()
    assert (report["owner"], report["note"], report["pinned"]) == ("alice", "mine", False)
    assert report["gold_sources"] == []
    is_final = method == "DELETE" or body == {"id": "taken"}
    for name in ("root",) if is_final else ("alice", "root"):
        answer = await as_caller(alices, name).request(method, path, json=body)
        assert answer.is_success, answer.text


async def test_scores_of_another_key_are_served_and_not_recorded(
    alices: httpx2.AsyncClient, app: FastAPI
) -> None:
    run = {"id": "alice-run", "step": 9}
    reply = await post(as_caller(alices, "mallory"), ["bb", "ccc"], run=run)
    assert [item["score"] for item in reply["results"]] == [2.0, 3.0]
    await post(as_caller(alices, "alice"), ["a"], run={"id": "alice-run"})
    await alices.patch(RUN, json={"note": "after all that was scored"})
    (stream,) = (await alices.get(f"{RUN}/series")).json()["streams"]
    assert [(step["step"], step["items"]) for step in stream["steps"]] == [(1, 2)]
    await alices.get("/metrics")
    metrics = components_of(app).metrics
    assert value(metrics, "assay_run_refused_total", reason="owner") == 2


async def test_new_names_of_another_key_push_out_no_run(
    alices: httpx2.AsyncClient, app: FastAPI
) -> None:
    mallory = as_caller(alices, "mallory")
    statuses = [
        (await mallory.post(f"/v1/runs/m-{number}/telemetry", json=TELEMETRY)).status_code
        for number in range(300)
    ]
    assert set(statuses) == {200, 409}
    assert (await mallory.get(f"{RUN}/health")).status_code == 200
    refused = await mallory.post("/v1/runs/m-300/telemetry", json=TELEMETRY)
    assert refused.json()["code"] == "run_quota_exceeded"
    # Another key still finds a place, in that of a run of the one that has most.
    answer = await as_caller(alices, "bob").post("/v1/runs/bob-run/telemetry", json=TELEMETRY)
    assert answer.status_code == 200
    await alices.patch("/v1/runs/bob-run", json={"note": "written"})
    listed = {run["run"]: run["owner"] for run in (await alices.get("/v1/runs")).json()["runs"]}
    assert {"alice-run": "alice", "bob-run": "bob"}.items() <= listed.items()
    assert len(listed) <= 200


async def test_a_run_begun_without_keys_goes_on_under_any(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/v1/runs/early/telemetry", json=TELEMETRY)).status_code == 200
    assert (await client.get("/v1/runs/early")).json()["owner"] == ""
    alice = as_caller(client, "alice")
    assert (await alice.post("/v1/runs/early/telemetry", json=TELEMETRY)).status_code == 200
    assert (await alice.patch("/v1/runs/early", json={"note": "mine now"})).status_code == 200


async def test_new_names_push_out_no_run_that_was_seen_lately(client: httpx2.AsyncClient) -> None:
    await client.post("/v1/runs/victim/telemetry", json=TELEMETRY)
    for number in range(300):
        await client.post(f"/v1/runs/new-{number}/telemetry", json=TELEMETRY)
    assert (await client.get("/v1/runs/victim/health")).status_code == 200


async def test_gold_sources_beyond_those_of_a_run_are_refused(client: httpx2.AsyncClient) -> None:
    for number in range(16):
        body = {**GOLD, "source": f"source-{number}"}
        assert (await client.post("/v1/runs/r/gold", json=body)).status_code == 200
    await client.patch("/v1/runs/r", json={"note": "written"})
    refused = await client.post("/v1/runs/r/gold", json={**GOLD, "source": "one more"})
    assert (refused.status_code, refused.json()["code"]) == (409, "run_quota_exceeded")
    again = await client.post("/v1/runs/r/gold", json={**GOLD, "source": "source-3", "step": 2})
    assert again.status_code == 200


async def test_a_run_is_pinned_and_unpinned(client: httpx2.AsyncClient) -> None:
    await client.post("/v1/runs/r/telemetry", json=TELEMETRY)
    for pinned in (True, False):
        assert (await client.patch("/v1/runs/r", json={"pinned": pinned})).json()[
            "pinned"
        ] is pinned
        assert (await client.get("/v1/runs")).json()["runs"][0]["pinned"] is pinned
    wrong = await client.patch("/v1/runs/r", json={"pinned": "yes"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "pinned")


@pytest.mark.parametrize("step", [True, "3", 3.5])
async def test_a_step_is_a_whole_number_and_no_text(
    client: httpx2.AsyncClient, step: object
) -> None:
    for path, body, field in (
        ("/v1/runs/r/telemetry", {**TELEMETRY, "step": step}, "step"),
        ("/v1/runs/r/gold", {**GOLD, "step": step}, "step"),
        (
            "/v1/score",
            {"model": "scripted", "items": [{"text": "a"}], "run": {"id": "r", "step": step}},
            "run.step",
        ),
    ):
        answer = await client.post(path, json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), path


@pytest.mark.parametrize("name", ["a\nb", "..", "a/../b", "a\u2028b", "a\x85b"])
async def test_a_name_that_no_address_can_hold_is_refused_wherever_a_run_is_named(
    client: httpx2.AsyncClient, name: str
) -> None:
    await client.post("/v1/runs/r/telemetry", json=TELEMETRY)
    body = {"model": "scripted", "items": [{"text": "a"}], "run": {"id": name}}
    assert (await client.post("/v1/score", json=body)).status_code == 422
    query = await client.post("/v1/score", json={**body, "run": None}, params={"run": name})
    assert query.status_code == 422
    assert (await client.patch("/v1/runs/r", json={"id": name})).status_code == 422
