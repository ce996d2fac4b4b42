"""A damaged file of runs under a server: other runs go on, and the state of the file is shown."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from support.doubles import value
from support.scoring_requests import post
from support.servers import serving

from assay.api.components import components_of
from assay.app import create_app
from assay.settings import Settings
from assay_monitors.history import RunHistory, Stream

STREAM = Stream("scripted@1", "train")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "runs.db"


@pytest.fixture
def app(scripted_settings: Settings, path: Path) -> FastAPI:
    return create_app(scripted_settings.model_copy(update={"runs": path}))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(app) as client:
        yield client


def telemetry(step: int) -> dict[str, Any]:
    return {"step": step, "values": {"kl": 0.5}}


async def write(client: httpx2.AsyncClient, run: str) -> int:
    """Return the status of an edit of a run, which is made once all before it is written."""
    return (await client.patch(f"/v1/runs/{run}", json={"note": "a note"})).status_code


def steps_of(path: Path, run: str, stream: Stream = STREAM) -> list[int]:
    return [point.step for point in RunHistory(path).series(run, stream)]


def remove_all(folder: Path) -> None:
    """Delete the file of runs, and SQLite's own files beside it."""
    for part in folder.iterdir():
        part.unlink()


def damage(path: Path, run: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE windows SET summary = x'0011' WHERE run = ?", (run,))


async def metric(client: httpx2.AsyncClient, app: FastAPI, name: str, **labels: str) -> float:
    await client.get("/metrics")
    return value(components_of(app).metrics, name, **labels)


async def test_a_damaged_row_ends_the_recording_of_no_run(
    client: httpx2.AsyncClient, app: FastAPI, path: Path
) -> None:
    for run in ("damaged", "other"):
        await post(client, ["a"], run={"id": run, "step": 1})
    assert await write(client, "damaged") == 200
    damage(path, "damaged")
    for run in ("damaged", "other", "new"):
        await post(client, ["a", "bb"], run={"id": run, "step": 1})
        assert (await client.post(f"/v1/runs/{run}/telemetry", json=telemetry(1))).is_success
    assert await write(client, "new") == 200
    for run, items, damaged in (("damaged", 2, 1), ("other", 3, 0), ("new", 2, 0)):
        series = (await client.get(f"/v1/runs/{run}/series")).json()
        assert [step["items"] for step in series["streams"][0]["steps"]] == [items]
        assert series["damaged"] == damaged
    assert await metric(client, app, "assay_run_damaged_rows_total") == 1
    assert await metric(client, app, "assay_run_observations_total", outcome="dropped") == 0
    assert await metric(client, app, "assay_runs_durable") == 1


@pytest.mark.parametrize("route", ["", "/health", "/series", "/chart"])
async def test_a_damaged_run_is_answered_with_what_is_readable(
    client: httpx2.AsyncClient, path: Path, route: str
) -> None:
    await post(client, ["a"], run={"id": "r", "step": 1})
    await client.post("/v1/runs/r/gold", json={"step": 1, "source": "t", "gradient_norm": 1.0})
    assert await write(client, "r") == 200
    damage(path, "r")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE gold SET point = '{'")
    await client.post("/v1/runs/r/telemetry", json=telemetry(2))
    assert await write(client, "r") == 200
    assert (await client.get(f"/v1/runs/r{route}")).status_code == 200
    # What was found unreadable is set aside, and counted from then on without reading it.
    await client.get("/v1/runs/r/health")
    assert await write(client, "r") == 200
    with closing(sqlite3.connect(path)) as connection:
        left = "SELECT (SELECT count(*) FROM gold), (SELECT count(*) FROM damaged)"
        assert connection.execute(left).fetchone() == (0, 2)
    answer = (await client.get(f"/v1/runs/r{route}")).json()
    assert answer["damaged"] == 2


async def test_a_file_that_is_deleted_is_made_anew_and_what_follows_is_kept(
    client: httpx2.AsyncClient, app: FastAPI, path: Path, *, caplog: pytest.LogCaptureFixture
) -> None:
    await post(client, ["a"], run={"id": "before", "step": 1})
    assert await write(client, "before") == 200
    remove_all(path.parent)
    assert await metric(client, app, "assay_runs_durable") == 0
    await post(client, ["a", "bb"], run={"id": "after", "step": 1})
    assert await write(client, "after") == 200
    assert steps_of(path, "after") == [1]
    assert [run.run for run in RunHistory(path).runs()] == ["after"]
    assert "was deleted or replaced" in caplog.text
    assert await metric(client, app, "assay_runs_durable") == 1
    assert await metric(client, app, "assay_run_last_commit_timestamp_seconds") > 0


async def test_a_file_that_is_replaced_by_noise_is_shown_as_not_durable_and_costs_no_score(
    client: httpx2.AsyncClient, app: FastAPI, path: Path, *, caplog: pytest.LogCaptureFixture
) -> None:
    await post(client, ["a"], run={"id": "r", "step": 1})
    assert await write(client, "r") == 200
    remove_all(path.parent)
    await asyncio.to_thread(path.write_bytes, b"noise" * 4096)
    reply = await post(client, ["bb"], run={"id": "r", "step": 2})
    assert reply["results"][0]["score"] == 2.0
    assert await write(client, "r") == 429
    assert "runs cannot be written" in caplog.text
    assert await metric(client, app, "assay_runs_durable") == 0
    assert await metric(client, app, "assay_run_commit_failures_total") >= 1
    listed = await client.get("/v1/runs")
    assert (listed.status_code, listed.json()["code"]) == (429, "overloaded")
    remove_all(path.parent)
    assert await write(client, "r") == 200
    assert steps_of(path, "r") == [2]
    assert await metric(client, app, "assay_runs_durable") == 1
