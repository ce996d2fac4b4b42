"""Loading, promoting and unloading by the routes: states, conflicts, and what they change."""

import asyncio
import hashlib
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from support.servers import serving

from assay import lifecycle
from assay.api.components import components_of
from assay.app import create_app
from assay.settings import Settings

from .conftest import AddCard, Gates

SECOND = {"model": "scripted@2"}


async def score(client: httpx2.AsyncClient, model: str, text: str = "four") -> Any:
    reply = await client.post("/v1/score", json={"model": model, "items": [{"text": text}]})
    return reply.json()


async def states(client: httpx2.AsyncClient) -> dict[str, str]:
    models = (await client.get("/v1/models")).json()["models"]
    return {model["id"]: model["state"] for model in models}


async def test_models_are_loaded_promoted_and_unloaded(client: httpx2.AsyncClient) -> None:
    reply = await client.post("/v1/models?wait=30", json=SECOND)
    assert (reply.status_code, reply.json()["state"]) == (200, "ready"), reply.text
    assert not reply.json()["default"]
    assert (await score(client, "scripted"))["model"] == "scripted@1"
    assert (await score(client, "scripted@2"))["results"][0]["score"] == 8
    assert (await client.post("/v1/models/scripted@2/promote")).json()["default"]
    assert (await score(client, "scripted"))["model"] == "scripted@2"
    reply = await client.delete("/v1/models/scripted@1?wait=30")
    assert (reply.status_code, reply.json()["state"]) == (200, "unloaded")
    assert (await score(client, "scripted@1"))["code"] == "model_not_found"
    assert (await client.get("/readyz")).json()["models"] == {"scripted@2": "ready"}
    assert 'assay_model_ready{model="scripted@1"}' not in (await client.get("/metrics")).text


async def test_load_is_answered_at_once_and_readiness_does_not_wait_for_it(
    client: httpx2.AsyncClient, gates: Gates
) -> None:
    gates.load.open.clear()
    reply = await client.post("/v1/models", json=SECOND)
    assert (reply.status_code, reply.json()["state"]) == (202, "loading")
    assert (await client.post("/v1/models", json=SECOND)).status_code == 202, "idempotent"
    refused = await score(client, "scripted@2")
    assert refused["code"] == "model_not_ready"
    assert "Retry-After" in refused["hint"]
    assert "GET /v1/models/scripted@2?wait=30" in refused["hint"]
    assert (await score(client, "scripted"))["model"] == "scripted@1"
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get("/v1/models/scripted@2?wait=0.01")).json()["state"] == "loading"
    gates.load.open.set()
    assert (await client.get("/v1/models/scripted@2?wait=30")).json()["state"] == "ready"
    assert (await client.post("/v1/models", json=SECOND)).status_code == 200


async def test_load_as_default_changes_the_default_once_it_is_ready(
    client: httpx2.AsyncClient, gates: Gates
) -> None:
    gates.load.open.clear()
    order = {**SECOND, "default": True}
    assert (await client.post("/v1/models", json=order)).status_code == 202
    assert (await score(client, "scripted"))["model"] == "scripted@1"
    assert (await client.post("/v1/models", json=order)).status_code == 202, "idempotent"
    gates.load.open.set()
    assert (await client.get("/v1/models/scripted@2?wait=30")).json()["default"]
    assert (await score(client, "scripted"))["model"] == "scripted@2"


async def test_a_load_that_fails_says_why_and_can_be_repeated(
    client: httpx2.AsyncClient, add_card: AddCard
) -> None:
    add_card("scripted", 3, options="[options]\nbreaks = true")
    reply = (await client.post("/v1/models?wait=30", json={"model": "scripted@3"})).json()
    assert (reply["state"], reply["failure"]) == ("failed", "loading raised RuntimeError")
    assert (await score(client, "scripted@3"))["code"] == "model_failed"
    assert (await client.post("/v1/models/scripted@3/promote")).json()["code"] == "model_failed"
    assert (await client.get("/readyz")).status_code == 200
    add_card("scripted", 3)
    reply = (await client.post("/v1/models?wait=30", json={"model": "scripted@3"})).json()
    assert reply["state"] == "ready"


async def test_load_of_a_bare_name_takes_the_highest_version_of_the_repository(
    client: httpx2.AsyncClient, add_card: AddCard
) -> None:
    add_card("scripted", 7)
    reply = await client.post("/v1/models?wait=30", json={"model": "scripted"})
    assert reply.json()["id"] == "scripted@7"


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ({"model": "scripted@9"}, 404, "model_not_found"),
        ({"model": "../x"}, 404, "model_not_found"),
        ({"model": "scripted@1", "default": True}, 200, None),
        ({"model": "scripted@1", "shadow_of": "scripted"}, 422, "invalid_request"),
        ({**SECOND, "shadow_of": "absent"}, 404, "model_not_found"),
        ({**SECOND, "shadow_of": "scripted", "default": True}, 422, "invalid_request"),
        ({"model": "pairs@1", "shadow_of": "scripted"}, 422, "invalid_request"),
        ({"model": "odd@1"}, 422, "invalid_card"),
        ({**SECOND, "card": {}}, 422, "invalid_request"),
    ],
)
async def test_load_that_cannot_be_says_why(
    client: httpx2.AsyncClient, add_card: AddCard, order: Any, status: int, code: str | None
) -> None:
    add_card("odd", 1, family="absent")
    add_card("pairs", 1, family="nli")
    reply = await client.post("/v1/models", json=order)
    assert (reply.status_code, reply.json().get("code")) == (status, code)
    assert await states(client) == {"scripted@1": "ready"}


async def test_unload_of_a_model_that_is_needed_is_refused(client: httpx2.AsyncClient) -> None:
    async def refusal(model: str) -> tuple[int, str]:
        reply = await client.delete(f"/v1/models/{model}")
        assert reply.json()["hint"]
        return reply.status_code, reply.json()["code"]

    assert await refusal("scripted@1") == (409, "model_is_last")
    assert await refusal("scripted@2") == (404, "model_not_found")
    await client.post("/v1/models?wait=30", json={**SECOND, "shadow_of": "scripted"})
    assert await refusal("scripted@1") == (409, "model_is_default")
    assert await refusal("scripted") == (422, "invalid_request")


async def test_a_model_has_one_role_at_a_time(
    client: httpx2.AsyncClient, add_card: AddCard
) -> None:
    add_card("other", 1)
    shadow = {"model": "other@1", "shadow_of": "scripted"}
    assert (await client.post("/v1/models?wait=30", json=shadow)).status_code == 200
    assert (await client.post("/v1/models", json=shadow)).status_code == 200, "idempotent"
    for order in ({"model": "other@1"}, {"model": "scripted@1", "shadow_of": "other"}):
        reply = await client.post("/v1/models", json=order)
        assert reply.status_code in (409, 422), order
    listed = (await client.get("/v1/models")).json()["models"]
    assert [model["shadow_of"] for model in listed] == ["scripted@1", None]
    reply = await client.delete("/v1/models/scripted@1")
    assert (reply.status_code, reply.json()["code"]) == (409, "model_is_shadowed")
    assert (await client.post("/v1/models/other@1/promote")).json()["shadow_of"] is None
    assert (await client.post("/v1/models", json=shadow)).json()["code"] == "model_exists"
    assert (await client.delete("/v1/models/scripted@1")).status_code in (200, 202)


async def test_promote_needs_a_model_that_is_ready(
    client: httpx2.AsyncClient, gates: Gates
) -> None:
    gates.load.open.clear()
    await client.post("/v1/models", json=SECOND)
    reply = await client.post("/v1/models/scripted@2/promote")
    assert (reply.status_code, reply.json()["code"]) == (503, "model_not_ready")
    assert (await client.post("/v1/models/scripted/promote")).json()["code"] == "invalid_request"
    assert (await client.post("/v1/models/absent@1/promote")).json()["code"] == "model_not_found"
    promoted = await client.post("/v1/models/scripted@1/promote")
    assert (promoted.status_code, promoted.json()["default"]) == (200, True)
    gates.load.open.set()


async def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    client: httpx2.AsyncClient, gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = lifecycle.lifecycle
    monkeypatch.setattr(module, "estimate_bytes", lambda *_: 100 * 2**20)
    monkeypatch.setattr(module, "available_bytes", lambda: 60 * 2**20)
    reply = await client.post("/v1/models", json=SECOND)
    assert (reply.status_code, reply.json()["code"]) == (507, "insufficient_memory")
    assert "190 MiB are missing" in reply.json()["detail"]
    assert not gates.load.entered.is_set()
    assert await states(client) == {"scripted@1": "ready"}


async def test_memory_of_a_load_under_way_counts(
    client: httpx2.AsyncClient,
    gates: Gates,
    add_card: AddCard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = lifecycle.lifecycle
    monkeypatch.setattr(module, "estimate_bytes", lambda *_: 100 * 2**20)
    monkeypatch.setattr(module, "available_bytes", lambda: 400 * 2**20)
    add_card("scripted", 3)
    gates.load.open.clear()
    assert (await client.post("/v1/models", json=SECOND)).status_code == 202
    reply = await client.post("/v1/models", json={"model": "scripted@3"})
    assert reply.json()["code"] == "insufficient_memory"
    gates.load.open.set()
    await client.get("/v1/models/scripted@2?wait=30")
    assert (await client.post("/v1/models", json={"model": "scripted@3"})).status_code == 202


async def test_changes_need_the_scope_admin(scripted_settings: Settings, app: FastAPI) -> None:
    lines: list[str] = []
    scopes = {"trainer": ["score", "read", "record"], "operator": ["admin"]}
    for name, granted in scopes.items():
        digest = hashlib.sha256(f"the key of the {name}".encode()).hexdigest()
        lines += [f"[{name}]", f'sha256 = "{digest}"', f"scopes = {granted}"]
    file = scripted_settings.repository[0] / "keys.toml"
    file.write_text("\n".join(lines))
    changes = {"models": ("scripted@1",), "api_keys_file": file}
    async with serving(create_app(scripted_settings.model_copy(update=changes))) as client:
        for name, statuses in (("trainer", [403] * 3), ("operator", [202, 200, 409])):
            headers = {"X-API-Key": f"the key of the {name}"}
            replies = [
                await client.post("/v1/models", json=SECOND, headers=headers),
                await client.post("/v1/models/scripted@1/promote", headers=headers),
                await client.delete("/v1/models/scripted@1", headers=headers),
            ]
            assert [reply.status_code for reply in replies] == statuses


async def test_requests_that_name_no_model_mean_the_one_of_the_start(
    client: httpx2.AsyncClient, add_card: AddCard
) -> None:
    add_card("other", 1)
    body = {"inputs": "four"}
    before = (await client.post("/predict", json=body)).json()
    for model in ("scripted@2", "other@1"):
        await client.post("/v1/models?wait=30", json={"model": model})
        assert (await client.post("/predict", json=body)).json() == before


@pytest.mark.parametrize("path", ["/v1/score", "/predict", "/v1/best-of-n"])
async def test_a_run_keeps_the_version_that_it_began_with(
    client: httpx2.AsyncClient, path: str
) -> None:
    bodies: dict[str, Any] = {
        "/v1/score": {"model": "scripted", "items": [{"text": "four"}]},
        "/v1/best-of-n": {"model": "scripted", "candidates": ["four"]},
        "/predict": {"inputs": "four", "raw_scores": True},
    }

    async def scored(run: str) -> float:
        url = f"{path}?run={run}" + ("&model=scripted" if path == "/predict" else "")
        reply = (await client.post(url, json=bodies[path])).json()
        if path == "/predict":
            return float(reply[0]["score"])
        return float(reply["results"][0]["score"])

    assert await scored("early") == 4
    await client.post("/v1/models?wait=30", json=SECOND)
    await client.post("/v1/models/scripted@2/promote")
    assert await scored("early") == 4
    assert await scored("late") == 8
    await client.delete("/v1/models/scripted@1?wait=30")
    assert await scored("early") == 8, "its version is served no longer"


async def test_a_request_that_names_a_version_gets_it_or_an_error(
    client: httpx2.AsyncClient,
) -> None:
    await client.post("/v1/models?wait=30", json={**SECOND, "default": True})
    assert (await score(client, "scripted@1"))["model"] == "scripted@1"
    await client.delete("/v1/models/scripted@1?wait=30")
    assert (await score(client, "scripted@1"))["code"] == "model_not_found"


async def test_unload_finishes_what_was_admitted_and_admits_nothing_new(
    client: httpx2.AsyncClient, gates: Gates
) -> None:
    await client.post("/v1/models?wait=30", json=SECOND)
    gates.predict.open.clear()
    admitted = asyncio.create_task(score(client, "scripted@2"))
    assert await asyncio.to_thread(gates.predict.entered.wait, 30)
    first, second = [await client.delete("/v1/models/scripted@2") for _ in range(2)]
    assert [reply.status_code for reply in (first, second)] == [202, 202]
    assert (await states(client))["scripted@2"] == "unloading"
    refused = await score(client, "scripted@2")
    assert (refused["code"], refused["detail"]) == (
        "model_not_found",
        "scripted@2 is being unloaded",
    )
    again = await client.post("/v1/models", json=SECOND)
    assert (again.status_code, again.json()["code"]) == (409, "model_unloading")
    promoted = await client.post("/v1/models/scripted@2/promote")
    assert (promoted.status_code, promoted.json()["code"]) == (409, "model_unloading")
    assert not admitted.done()
    gates.predict.open.set()
    assert (await admitted)["results"][0]["score"] == 8
    assert (await client.delete("/v1/models/scripted@2?wait=30")).status_code in (200, 404)
    assert await states(client) == {"scripted@1": "ready"}


async def test_unload_while_loading_waits_for_the_load_and_serves_nothing(
    client: httpx2.AsyncClient, gates: Gates, add_card: AddCard
) -> None:
    add_card("scripted", 3)
    gates.load.open.clear()
    await client.post("/v1/models", json=SECOND)
    assert await asyncio.to_thread(gates.load.entered.wait, 30)
    await client.post("/v1/models", json={"model": "scripted@3"})
    waiting = await client.delete("/v1/models/scripted@3?wait=30")
    assert waiting.json()["state"] == "unloaded", "it had not begun to load"
    assert (await client.delete("/v1/models/scripted@2")).json()["state"] == "unloading"
    gates.load.open.set()
    reply = await client.delete("/v1/models/scripted@2?wait=30")
    assert reply.status_code in (200, 404)
    assert len(gates.load.batches) == 1
    assert await states(client) == {"scripted@1": "ready"}


async def test_waits_for_a_load_are_answered_when_the_server_is_to_stop(
    app: FastAPI, client: httpx2.AsyncClient, gates: Gates
) -> None:
    gates.load.open.clear()
    loading = asyncio.create_task(client.post("/v1/models?wait=300", json=SECOND))
    assert await asyncio.to_thread(gates.load.entered.wait, 30)
    lifecycle = components_of(app).lifecycle
    while not lifecycle._waits:  # noqa: ASYNC110 there is no event to wait for
        await asyncio.sleep(0)
    lifecycle.end_waits()
    replies = [await loading, await client.delete("/v1/models/scripted@2?wait=300")]
    assert [reply.status_code for reply in replies] == [202, 202]
    assert [reply.json()["state"] for reply in replies] == ["loading", "unloading"]
    gates.load.open.set()


async def test_shutdown_during_a_load_ends(app: FastAPI, gates: Gates) -> None:
    async with serving(app) as client:
        gates.load.open.clear()
        await client.post("/v1/models", json=SECOND)
        assert await asyncio.to_thread(gates.load.entered.wait, 30)
        asyncio.get_running_loop().call_later(0.05, gates.load.open.set)
    table = components_of(app).lifecycle.table
    assert table.names["scripted@2"].state.name == "loading"  # no state comes after a shutdown


async def test_request_that_outlasts_the_drain_leaves_the_count_of_the_next_load_alone(
    client: httpx2.AsyncClient, app: FastAPI
) -> None:
    await client.post("/v1/models?wait=30", json=SECOND)
    table = components_of(app).lifecycle.table
    old = table.names["scripted@2"]
    old.in_flight += 1
    table.remove(old)
    await table.idle(old, 0.0)
    table.forget(old)
    await client.post("/v1/models?wait=30", json=SECOND)
    new = table.names["scripted@2"]
    old.in_flight -= 1
    table.leave(old)
    assert new is not old
    assert (old.in_flight, new.in_flight) == (0, 0)


async def test_the_last_model_that_is_ready_is_not_unloaded_beside_one_that_failed(
    client: httpx2.AsyncClient, add_card: AddCard
) -> None:
    add_card("other", 1, options="[options]\nbreaks = true")
    await client.post("/v1/models?wait=30", json={"model": "other@1"})
    reply = await client.delete("/v1/models/scripted@1")
    assert (reply.status_code, reply.json()["code"]) == (409, "model_is_last")
    assert (await client.delete("/v1/models/other@1?wait=30")).json()["state"] == "unloaded"


async def test_model_that_breaks_while_it_is_unloaded_does_not_stop_the_server(
    client: httpx2.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[str] = []
    lifecycle_ = components_of(app).lifecycle
    monkeypatch.setattr(lifecycle_, "_on_death", reasons.append)
    await client.post("/v1/models?wait=30", json=SECOND)
    served = components_of(app).service.find("scripted@2")
    await client.delete("/v1/models/scripted@2?wait=30")
    served._on_death("its batcher broke")
    assert reasons == []
    await client.post("/v1/models?wait=30", json=SECOND)
    served._on_death("its batcher broke")
    assert reasons == [], "another model has its name now"
    components_of(app).service.find("scripted@2")._on_death("it broke")
    assert reasons == ["it broke"]
