"""Deletion, names and notes of runs, and the names that a run may have."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from support.doubles import value
from support.scoring_requests import post
from support.servers import Served, serving
from support.webhook_receivers import receiving

from assay.api.components import components_of
from assay.app import create_app
from assay.runs.monitor import RunMonitor
from assay.settings import Settings, read_settings
from assay_monitors.changes import Changes, Outcome
from assay_monitors.recorder import Recorder
from assay_monitors.store import Edit, RunStore

TELEMETRY = {"step": 4, "values": {"kl": 0.5}}
GOLD = {"step": 1, "source": "tests", "gradient_norm": 1.0}
FAILING = ["nan"] * 64


@pytest.fixture
def kept_settings(scripted_settings: Settings, tmp_path: Path) -> Settings:
    changes = {"runs": tmp_path / "runs.db", "evaluation_seconds": 0.01}
    return scripted_settings.model_copy(update=changes)


@pytest.fixture
async def client(served: Served, kept_settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    async with served(kept_settings) as client:
        yield client


async def names(client: httpx2.AsyncClient) -> list[str]:
    return [run["run"] for run in (await client.get("/v1/runs")).json()["runs"]]


async def test_a_run_is_deleted_with_all_that_was_scored_before(client: httpx2.AsyncClient) -> None:
    await post(client, ["a"], run={"id": "team/r", "step": 1})
    await client.post("/v1/runs/team/r/gold", json=GOLD)
    await post(client, ["a"], run={"id": "other"})
    gone = await client.delete("/v1/runs/team/r")
    assert (gone.status_code, gone.content) == (204, b"")
    assert await names(client) == ["other"]
    again = await client.delete("/v1/runs/team/r")
    assert (again.status_code, again.json()["code"]) == (404, "run_not_found")


async def test_a_deleted_run_begins_anew_with_a_later_request(client: httpx2.AsyncClient) -> None:
    await post(client, ["a"] * 5, run={"id": "r", "step": 9})
    await client.delete("/v1/runs/r")
    await post(client, ["a"], run={"id": "r"})
    assert (await client.patch("/v1/runs/r", json={"note": "again"})).json()["note"] == "again"
    (stream,) = (await client.get("/v1/runs/r/series")).json()["streams"]
    assert [(step["step"], step["items"]) for step in stream["steps"]] == [(0, 1)]


async def test_an_edit_that_times_out_is_not_done_and_later_ones_are(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go, write = threading.Event(), threading.Event(), RunStore.write

    def held_write(store: RunStore, changes: Changes) -> Outcome:
        writing.set()
        assert go.wait(30)
        return write(store, changes)

    monkeypatch.setattr(RunStore, "write", held_write)
    await post(client, ["a"], run={"id": "r", "step": 1})
    assert await asyncio.to_thread(writing.wait, 30)
    with monkeypatch.context() as patch:
        patch.setattr("assay.runs.monitor.EDIT_SECONDS", 0.0)
        for method in ("DELETE", "PATCH"):
            late = await client.request(method, "/v1/runs/r", json={"id": "new"})
            assert (late.status_code, late.json()["code"]) == (429, "overloaded")
    go.set()
    edited = await client.patch("/v1/runs/r", json={"note": "kept"})
    assert (edited.status_code, edited.json()["note"]) == (200, "kept")
    assert (await client.delete("/v1/runs/r")).status_code == 204
    await post(client, ["a"], run={"id": "again"})
    assert (await client.patch("/v1/runs/again", json={"note": "x"})).status_code == 200


async def test_an_edit_that_has_begun_is_answered_with_its_outcome(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Begun(Future[Edit]):
        """An order that runs, and that ends as soon as it should be cancelled."""

        def cancel(self) -> bool:
            self.set_result("done")
            return super().cancel()

    begun = Begun()
    begun.set_running_or_notify_cancel()
    monkeypatch.setattr(Recorder, "delete", lambda recorder, run, writer: begun)
    monkeypatch.setattr("assay.runs.monitor.EDIT_SECONDS", 0.0)
    assert (await client.delete("/v1/runs/r")).status_code == 204


async def test_an_edit_is_answered_while_a_read_of_the_database_hangs(
    kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, go = create_app(kept_settings), threading.Event()
    async with serving(app) as client:
        monkeypatch.setattr(RunMonitor._measure_next, "__defaults__", (0.1,))
        hanging = components_of(app).runs._measuring.submit(go.wait, 30)
        for method in ("DELETE", "PATCH"):
            late = await client.request(method, "/v1/runs/r", json={"id": "new"})
            assert (late.status_code, late.json()["code"]) == (429, "overloaded")
        go.set()
        assert await asyncio.wrap_future(hanging)


async def test_an_edit_that_has_begun_is_answered_while_the_database_hangs(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: Future[Edit] = Future()
    begun.set_running_or_notify_cancel()
    monkeypatch.setattr(Recorder, "delete", lambda recorder, run, writer: begun)
    monkeypatch.setattr("assay.runs.monitor.EDIT_SECONDS", 0.0)
    monkeypatch.setattr("assay.runs.monitor.BEGUN_SECONDS", 0.1)
    late = await client.delete("/v1/runs/r")
    assert (late.status_code, late.json()["code"]) == (429, "overloaded")


async def test_a_run_gets_another_name_and_a_note(client: httpx2.AsyncClient) -> None:
    await post(client, ["a"], run={"id": "old", "step": 2})
    edited = await client.patch("/v1/runs/old", json={"id": "team/new", "note": "the good one"})
    assert edited.status_code == 200, edited.text
    report = edited.json()
    assert (report["run"], report["note"]) == ("team/new", "the good one")
    assert report["streams"] == [{"model": "scripted@1", "split": "train"}]
    assert await names(client) == ["team/new"]
    assert (await client.get("/v1/runs/old/health")).status_code == 404
    health = (await client.get("/v1/runs/team/new/health")).json()
    assert (health["note"], health["streams"][0]["step"]) == ("the good one", 2)
    listed = (await client.get("/v1/runs")).json()["runs"]
    assert listed[0]["note"] == "the good one"
    cleared = await client.patch("/v1/runs/team/new", json={"note": ""})
    assert cleared.json()["note"] is None


async def test_a_run_cannot_take_the_name_of_another(client: httpx2.AsyncClient) -> None:
    for run in ("a", "b"):
        await post(client, ["a"], run={"id": run})
    refused = await client.patch("/v1/runs/a", json={"id": "b", "note": "lost"})
    assert (refused.status_code, refused.json()["code"]) == (409, "run_exists")
    assert "delete or rename" in refused.json()["hint"]
    assert sorted(await names(client)) == ["a", "b"]
    missing = await client.patch("/v1/runs/unknown", json={"note": "x"})
    assert (missing.status_code, missing.json()["code"]) == (404, "run_not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"id": None, "note": None}, "body"),
        ({"id": ""}, "id"),
        ({"id": "a//b"}, "id"),
        ({"note": "x" * 2_001}, "note"),
        ({"name": "b"}, "name"),
    ],
)
async def test_a_malformed_edit_is_refused_with_its_field(
    client: httpx2.AsyncClient, body: object, field: str
) -> None:
    refused = await client.patch("/v1/runs/a", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert refused.json()["errors"][0]["field"] == field


@pytest.mark.parametrize("method", ["DELETE", "PATCH"])
async def test_edits_need_a_key_and_kept_runs(
    served: Served, scripted_settings: Settings, method: str
) -> None:
    keys = Settings(api_keys=("a-key-0123456789abc",)).api_keys
    for changes, status in (({"api_keys": keys}, 401), ({"runs": "off"}, 404)):
        async with served(scripted_settings.model_copy(update=changes)) as client:
            answer = await client.request(method, "/v1/runs/r", json={"note": "x"})
            assert answer.status_code == status


OPENABLE = [
    "a b",
    " a ",
    "a/b/c",
    "naïve/实验-17",
    "50%",
    "a%2Fb",
    "what?#x",
    "a\\b",
    'quote"<b>',
    "...",
    "a/.b",
    "health",
    "a/gold",
    "🙂" * 100,
]


@pytest.mark.parametrize("name", OPENABLE)
async def test_every_name_that_a_score_accepts_is_open_to_every_route(
    client: httpx2.AsyncClient, name: str
) -> None:
    await post(client, ["a"], run={"id": name, "step": 1})
    for path in (quote(name, safe=""), quote(name, safe="/")):
        for posted, body in (("telemetry", TELEMETRY), ("gold", GOLD)):
            assert (await client.post(f"/v1/runs/{path}/{posted}", json=body)).status_code == 200
        for route in ("", "/health", "/series", "/chart", "/events"):
            answer = await client.get(f"/v1/runs/{path}{route}")
            assert (answer.status_code, answer.json()["run"]) == (200, name), route
        assert (await client.patch(f"/v1/runs/{path}", json={"id": "tmp"})).status_code == 200
        assert (await client.patch("/v1/runs/tmp", json={"id": name})).json()["run"] == name
    assert await names(client) == [name]
    assert (await client.delete(f"/v1/runs/{quote(name, safe='')}")).status_code == 204


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("..", "a part `.` or `..`"),
        (".", "a part `.` or `..`"),
        ("a/../b", "a part `.` or `..`"),
        ("/a", "begins or ends with a slash"),
        ("a/", "begins or ends with a slash"),
        ("a//b", "two in a row"),
        ("a/health", "ends with `/health`"),
        ("", "at least 1 character"),
        ("a" * 257, "at most 256 characters"),
    ],
)
async def test_a_name_that_no_route_can_open_is_refused_at_the_score(
    client: httpx2.AsyncClient, name: str, reason: str
) -> None:
    body = {"model": "scripted", "items": [{"text": "a"}], "run": {"id": name}}
    refused = await client.post("/v1/score", json=body)
    assert refused.status_code == 422
    (problem,) = refused.json()["errors"]
    assert (problem["field"], reason in problem["problem"]) == ("run.id", True), problem


@pytest.mark.parametrize("route", ["telemetry", "gold"])
async def test_a_name_that_no_score_accepts_is_refused_in_a_path(
    client: httpx2.AsyncClient, route: str
) -> None:
    body = TELEMETRY if route == "telemetry" else GOLD
    refused = await client.post(f"/v1/runs/a%0Ab/{route}", json=body)
    assert refused.status_code in (404, 422)
    assert await names(client) == []


async def test_alerts_end_with_a_deleted_run_and_go_on_under_another_name(
    kept_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.runs.evaluator.rest_after", lambda seconds: 0.0)
    with receiving() as receiver:
        url = read_settings({"ASSAY_ALERT_URL": receiver.url}).alert_url
        app = create_app(kept_settings.model_copy(update={"alert_url": url}))
        async with serving(app) as client:
            await post(client, FAILING, run={"id": "a", "step": 1})
            first = (await asyncio.to_thread(receiver.next_post)).json
            assert (first["type"], first["data"]["run"]) == ("run.alert.firing", "a")
            assert (await client.patch("/v1/runs/a", json={"id": "b"})).status_code == 200
            assert (await client.delete("/v1/runs/b")).status_code == 204
            last = (await asyncio.to_thread(receiver.next_post)).json
            assert (last["type"], last["data"]["run"]) == ("run.alert.resolved", "b")
            metrics = components_of(app).metrics
            while 'run="a"' in (page := (await client.get("/metrics")).text) or 'run="b"' in page:
                pass
            assert value(metrics, "assay_run_evaluations_total", outcome="failed") == 0
