"""A run's chart and updates over HTTP: formats, refusals, and the events of a real server."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest
from support.scoring_requests import post
from support.servers import Served, listening

from assay.app import create_app
from assay.runs.subscribers import MAX_SUBSCRIBERS_PER_OWNER
from assay.settings import Settings

EVENTS = {"Accept": "text/event-stream"}
TELEMETRY = {"step": 4, "values": {"kl": 0.5}}
PATHS = ["/v1/runs/r/chart", "/v1/runs/r/events"]


@pytest.fixture
def kept_settings(scripted_settings: Settings, tmp_path: Path) -> Settings:
    return scripted_settings.model_copy(update={"runs": tmp_path / "runs.db"})


@pytest.fixture
async def client(served: Served, kept_settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that was restarted after a run."""
    async with served(kept_settings) as client:
        for step in range(3):
            await post(client, ["a", "bb", "nan"], run={"id": "r", "step": step})
        await client.post("/v1/runs/team/a%20b/telemetry", json=TELEMETRY)
    async with served(kept_settings) as client:
        yield client


async def test_a_chart_has_columns_quantiles_and_groups(client: httpx2.AsyncClient) -> None:
    chart = (await client.get("/v1/runs/r/chart")).json()
    (stream,) = chart["streams"]
    columns = stream["columns"]
    assert (columns["first"], columns["last"]) == ([0, 1, 2], [0, 1, 2])
    assert (columns["items"], columns["nulls"]) == ([3] * 3, [1] * 3)
    assert columns["score"]["mean"] == [1.5] * 3
    assert [sum(shares) for shares in stream["distribution"]["shares"]] == pytest.approx([1.0] * 3)
    assert stream["groups"] is None
    few = (await client.get("/v1/runs/r/chart", params={"columns": 2})).json()
    assert few["streams"][0]["columns"]["items"] == [6, 3]
    other = await client.get("/v1/runs/r/chart", params={"split": "eval"})
    assert other.json()["streams"] == []


async def test_the_latest_update_is_returned_without_a_subscription(
    client: httpx2.AsyncClient,
) -> None:
    update = (await client.get("/v1/runs/team/a%20b/events")).json()
    assert (update["run"], update["step"]) == ("team/a b", 4)
    assert (await client.get("/v1/runs/r/events")).json()["step"] == 2


@pytest.mark.parametrize("path", PATHS)
async def test_replies_match_their_schema(client: httpx2.AsyncClient, path: str) -> None:
    schemas: Mapping[str, Any] = create_app(Settings(models=("reference",))).openapi()
    operation = schemas["paths"][path.replace("/r/", "/{run}/")]["get"]
    shape = operation["responses"]["200"]["content"]["application/json"]["schema"]
    answer = await client.get(path)
    jsonschema_rs.validate({**shape, "components": schemas["components"]}, answer.json())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_refusals_are_the_same_for_json_and_for_events(
    served: Served,
    scripted_settings: Settings,
    kept_settings: Settings,
    path: str,
    headers: dict[str, str],
) -> None:
    keys = Settings(api_keys=("a-key-0123456789abc",)).api_keys
    for settings, status, code in (
        (kept_settings, 404, "run_not_found"),
        (kept_settings.model_copy(update={"api_keys": keys}), 401, "unauthorized"),
        (scripted_settings.model_copy(update={"runs": "off"}), 404, "runs_off"),
    ):
        async with served(settings) as client:
            answer = await client.get(path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("columns", ["0", "501", "many", "-1"])
async def test_columns_are_bounded(client: httpx2.AsyncClient, columns: str) -> None:
    answer = await client.get("/v1/runs/r/chart", params={"columns": columns})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "columns")


async def test_the_columns_of_a_long_run_are_bounded(
    served: Served, kept_settings: Settings
) -> None:
    async with served(kept_settings) as client:
        for step in range(300):
            await client.post("/v1/runs/long/telemetry", json={"step": step, "values": {"x": 1}})
    async with served(kept_settings) as client:
        whole = await client.get("/v1/runs/long/chart")
        (stream,) = whole.json()["streams"]
        assert len(stream["columns"]["last"]) == 100
        assert (stream["columns"]["first"][0], stream["columns"]["last"][-1]) == (0, 299)


@pytest.fixture
def address(kept_settings: Settings) -> Iterator[str]:
    with listening(kept_settings) as url:
        yield url


def next_event(lines: Iterator[str]) -> tuple[str, dict[str, Any]]:
    """Return the next event's name and data."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            return name, json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended")


def events_path(address: str, run: str) -> str:
    """Record telemetry of a run; return its events' URL once it is stored."""
    httpx2.post(f"{address}/v1/runs/{run}/telemetry", json=TELEMETRY).raise_for_status()
    for _ in range(10_000):
        if httpx2.get(f"{address}/v1/runs/{run}/events").status_code == 200:
            return f"{address}/v1/runs/{run}/events"
    raise AssertionError("the run was never written")


def test_events_are_sent_when_data_is_recorded(address: str) -> None:
    path = events_path(address, "r")
    with httpx2.stream("GET", path, headers=EVENTS, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        lines = answer.iter_lines()
        name, update = next_event(lines)
        assert (name, update["run"], update["step"]) == ("seen", "r", 4)
        httpx2.post(
            f"{address}/v1/runs/r/telemetry", json={**TELEMETRY, "step": 5}
        ).raise_for_status()
        name, latest = next_event(lines)
        assert (name, latest["step"]) == ("seen", 5)
        assert latest["last_seen"] > update["last_seen"]


def test_subscribers_beyond_the_maximum_are_refused_until_one_leaves(address: str) -> None:
    path = events_path(address, "r")
    limits = httpx2.Limits(max_connections=MAX_SUBSCRIBERS_PER_OWNER + 8)
    with httpx2.Client(timeout=30, limits=limits) as client:
        streams = [
            client.stream("GET", path, headers=EVENTS) for _ in range(MAX_SUBSCRIBERS_PER_OWNER)
        ]
        for stream in streams:
            assert stream.__enter__().status_code == 200
        refused = client.get(path, headers=EVENTS)
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        assert client.get(path).status_code == 200, "a single request takes no place"
        for stream in streams:
            stream.__exit__(None, None, None)
        statuses = set()
        for _ in range(1000):
            with client.stream("GET", path, headers=EVENTS) as again:
                statuses.add(again.status_code)
            if 200 in statuses:
                break
        assert 200 in statuses
