"""API keys: names, scopes, the file that lists them, and refused requests."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route
from support.doubles import new_metrics, value
from support.servers import Served

from assay.api import access, openapi
from assay.api.access import Refusals
from assay.api.keys import ApiKeys
from assay.api.scopes import SCOPE_OF, ScopedRoute, scope_of
from assay.app import create_app
from assay.errors import Forbidden, SettingsError, Unauthorized
from assay.scoring.service import ScoreCall
from assay.settings import Settings
from assay.types import NO_CALLER, SCOPES, STRANGER, Caller, Scope
from assay_models.card import CardError
from assay_models.families.reference import ReferenceModel

KEYS = {scope: f"the-key-that-has-{scope}" for scope in sorted(SCOPES)}
ITEMS = {"model": "scripted", "items": [{"text": "a"}]}
FAILED_ITEMS = {**ITEMS, "model": "reference"}
TELEMETRY = {"step": 1, "values": {"entropy": 0.5}}


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def table(name: str, scopes: list[str], *keys: str, more: str = "") -> str:
    digests = ", ".join(f'"{digest(key)}"' for key in keys)
    return f"[{name}]\nscopes = {scopes}\nsha256 = [{digests}]\n{more}\n"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one key for each scope."""
    path = tmp_path / "keys.toml"
    path.write_text("".join(table(scope, [scope], key) for scope, key in KEYS.items()))
    return path


@pytest.fixture
def keyed(scripted_settings: Settings, file: Path, tmp_path: Path) -> Settings:
    return scripted_settings.model_copy(
        update={"api_keys_file": file, "runs": tmp_path / "runs.db"}
    )


def routes_of(app: FastAPI) -> Iterator[BaseRoute]:
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else inner.routes


def test_every_route_but_the_public_pages_has_a_scope(reference_settings: Settings) -> None:
    public = openapi.public_paths() | {"/docs/oauth2-redirect"}
    listed = set()
    for route in routes_of(create_app(reference_settings)):
        if isinstance(route, ScopedRoute):
            listed |= {f"{method} {route.path}" for method in route.methods or ()}
            assert route.needed_scope is scope_of(route.methods or (), route.path)
        elif not isinstance(route, Mount):
            assert isinstance(route, Route | APIRoute)
            assert route.path in public, f"{route.path} needs no scope"
    assert {text.replace(":path}", "}") for text in listed} == set(SCOPE_OF)


def test_a_route_that_is_not_in_the_table_is_refused() -> None:
    async def endpoint() -> None: ...

    with pytest.raises(LookupError, match="/v1/new"):
        ScopedRoute("/v1/new", endpoint, methods=["GET"])
    with pytest.raises(LookupError, match="one scope"):
        ScopedRoute("/v1/runs/{run}", endpoint, methods=["GET", "DELETE"])


@pytest.mark.parametrize(
    ("method", "path", "body", "scope"),
    [
        ("POST", "/v1/score", ITEMS, "score"),
        ("POST", "/v1/score", {"malformed": True}, "score"),
        ("POST", "/compat/tei/scripted/predict", {"inputs": "a"}, "score"),
        ("POST", "//v1//score/", ITEMS, "score"),
        ("GET", "/metrics", None, "read"),
        ("GET", "/v1/runs", None, "read"),
        ("GET", "/v1/runs/r/events", None, "read"),
        ("POST", "/v1/runs/r/telemetry", TELEMETRY, "record"),
        ("PATCH", "/v1/runs/r", {"note": "x"}, "record"),
        ("DELETE", "/v1/runs/r", None, "record"),
    ],
)
async def test_a_key_without_the_routes_scope_gets_403(
    served: Served, keyed: Settings, method: str, path: str, body: object, scope: Scope
) -> None:
    async with served(keyed) as client:
        for own, key in KEYS.items():
            place = path.replace("/r/", f"/{own}/") if path.startswith("/v1/runs/r/") else path
            answer = await client.request(method, place, json=body, headers=bearer(key))
            if own in (scope, "admin"):
                assert answer.status_code != 403, own
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), own
                assert scope in answer.json()["detail"]
                assert answer.json()["hint"] == f"its scopes: {own}"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/scripted", "/version", "/readyz"])
async def test_any_key_may_ask_about_the_server(served: Served, keyed: Settings, path: str) -> None:
    async with served(keyed) as client:
        for key in KEYS.values():
            assert (await client.get(path, headers=bearer(key))).status_code == 200


async def test_a_key_that_may_only_score_sees_no_reason_of_a_failure(
    served: Served, keyed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "the file /srv/models/a is away"
    monkeypatch.setattr(ReferenceModel, "load", Mock(side_effect=CardError(reason)))
    settings = keyed.model_copy(update={"models": (*keyed.models, "reference")})
    async with served(settings) as client:

        async def texts(key: str) -> list[str]:
            headers = bearer(key)
            scored = await client.post("/v1/score", json=FAILED_ITEMS, headers=headers)
            assert scored.status_code in (403, 503)
            paths = ("/readyz", "/v1/models", "/v1/models/reference")
            shown = [await client.get(path, headers=headers) for path in paths]
            assert all("failed" in answer.text for answer in shown)
            return [scored.text, *(answer.text for answer in shown)]

        for scope, key in KEYS.items():
            named = [reason in text for text in await texts(key)]
            assert named == [False, *[scope in ("read", "admin")] * 3], scope


async def test_the_caller_has_the_keys_name_and_scopes(
    served: Served, keyed: Settings, calls: list[ScoreCall]
) -> None:
    bare = "a-key-of-the-settings"
    settings = keyed.model_copy(update={"api_keys": Settings(api_keys=(bare,)).api_keys})
    async with served(settings) as client:
        for key in (KEYS["score"], KEYS["admin"], bare):
            await client.post("/v1/score", json=ITEMS, headers=bearer(key))
        await client.post("/predict", json={"inputs": "a"}, headers={"X-API-Key": KEYS["score"]})
    first, second, third, fourth = [call.caller for call in calls]
    assert (first.name, first.scopes) == ("score", frozenset({"score"}))
    assert (second.name, second.scopes) == ("admin", SCOPES)
    assert third.scopes == SCOPES
    assert third.name.startswith("key-")
    assert bare not in third.name
    assert fourth == first


async def test_a_remembered_header_opens_nothing_for_another(
    served: Served, keyed: Settings, calls: list[ScoreCall]
) -> None:
    headers = [bearer(KEYS["score"]), bearer(KEYS["read"]), bearer(KEYS["score"] + "x"), {}]
    async with served(keyed) as client:
        for _ in range(2):
            answers = [await client.post("/v1/score", json=ITEMS, headers=own) for own in headers]
            assert [answer.status_code for answer in answers] == [200, 403, 403, 401]
    assert {call.caller.name for call in calls} == {"score"}


@pytest.mark.parametrize("value", ["", "Token abc", "abc", "Negotiate"])
async def test_an_authorization_that_has_no_key_opens_nothing_after_a_request_with_one(
    served: Served, keyed: Settings, value: str
) -> None:
    other = {"Authorization": value}
    async with served(keyed) as client:
        for _ in range(2):
            both = {**other, "X-API-Key": KEYS["admin"]}
            assert (await client.get("/metrics", headers=both)).status_code == 200
            assert (await client.get("/metrics", headers=other)).status_code == 401
        wrong = {**other, "X-API-Key": "a-wrong-key-of-somebody"}
        assert (await client.get("/metrics", headers=wrong)).status_code == 403


async def test_a_server_without_keys_gives_every_request_all_scopes(
    served: Served, scripted_settings: Settings, calls: list[ScoreCall]
) -> None:
    async with served(scripted_settings) as client:
        await client.post("/v1/score", json=ITEMS, headers=bearer("anything"))
    assert (calls[0].caller.name, calls[0].caller.scopes) == ("", SCOPES)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "has no key"),
        ("[trainer]", "trainer.scopes: Field required"),
        (table("trainer", [], "k"), "trainer.scopes"),
        (table("trainer", ["write"], "k"), "trainer.scopes.0"),
        (table("trainer", ["score"]), "trainer.sha256"),
        ('[trainer]\nscopes = ["score"]\nsha256 = "hush-hush-hush-hush"', "trainer.sha256.0"),
        ('[trainer]\nscopes = ["score"]\nkey = "hush-hush-hush-hush"', "trainer."),
        (table('"a b"', ["score"], "k"), "a b"),
        (table("a", ["score"], "k") + table("b", ["read"], "k"), "a and b have the same key"),
        ("not toml", "is not TOML"),
        ("\udcff", "is not TOML"),
        (None, "cannot read"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_with_a_hint(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    path = tmp_path / "keys.toml"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError) as failure:
        create_app(Settings(models=("reference",), api_keys_file=path))
    assert problem in str(failure.value)
    assert str(failure.value).startswith("ASSAY_API_KEYS_FILE: ")
    assert "sha256sum" in (failure.value.hint or "")
    assert "hush" not in f"{failure.value} {failure.value.hint}"


def test_a_changed_file_replaces_the_keys(file: Path) -> None:
    keys = ApiKeys([], file)
    old, new = KEYS["score"].encode(), b"the-key-that-replaces-it"
    both = table("score", ["score"], old.decode(), new.decode())
    file.write_text(both)
    keys.refresh()
    for key in (old, new):
        caller = keys.find(key)
        assert caller is not None
        assert caller.name == "score"
    keys.admitted[b"Bearer old"] = NO_CALLER
    replaced = file.with_name("next.toml")
    replaced.write_text(table("score", ["score"], new.decode()))
    replaced.rename(file)
    keys.refresh()
    assert keys.find(old) is None
    assert keys.admitted == {}, "a header that was accepted before is checked again"
    assert keys.find(new) is not None


def test_a_file_that_may_be_read_again_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ApiKeys([], file)
    new = "the-key-that-replaces-it"
    file.write_text(table("score", ["score"], new))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", Mock(side_effect=PermissionError(13, "denied")))
        keys.refresh()
    assert keys.find(new.encode()) is None
    file.chmod(0o640)  # which changes neither its time, nor its size
    keys.refresh()
    assert keys.find(new.encode()) is not None
    assert keys.find(KEYS["score"].encode()) is None


def test_a_digest_may_be_the_whole_output_of_sha256sum(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f'[trainer]\nscopes = ["score"]\nsha256 = "{digest("a-key-of-16-letters")}  -"')
    assert ApiKeys([], file).find(b"a-key-of-16-letters") is not None


@pytest.mark.parametrize("content", ["", "[broken", None])
def test_a_file_that_becomes_unusable_leaves_the_keys_as_they_were(
    file: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ApiKeys([], file)
    if content is None:
        os.unlink(file)
    else:
        file.write_text(content)
    keys.refresh()
    keys.refresh()
    assert keys.find(KEYS["score"].encode()) is not None
    assert caplog.text.count("the API keys stay as they were") == 1


async def test_refusals_are_counted_by_reason_and_logged_without_the_key(
    keyed: Settings, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with served(keyed) as client:
            for _ in range(3):
                await client.get("/v1/models", headers=bearer("a-wrong-key-of-somebody"))
            await client.get("/v1/models")
            text = (await client.get("/metrics", headers=bearer(KEYS["read"]))).text
    assert 'assay_auth_failures_total{reason="wrong"} 3.0' in text
    assert 'assay_auth_failures_total{reason="missing"} 1.0' in text
    assert caplog.text.count("refused 127.0.0.1") == 1
    assert "a-wrong-key-of-somebody" not in caplog.text


def http_scope(address: str) -> dict[str, object]:
    return {"type": "http", "client": (address, 1)}


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays of replies, which take no time."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


@pytest.mark.parametrize("scheme", ["bearer", "x-api-key"])
async def test_a_wrong_key_on_a_public_path_is_counted_and_slowed_like_any_other(
    slept: list[float], file: Path, scheme: str
) -> None:
    metrics = new_metrics()
    refusals = Refusals(metrics, lambda: 0.0)
    admit = access.Access(ApiKeys([], file), {"/readyz"}, None, refusals).admit

    async def probe(key: bytes) -> Caller:
        sent = {b"authorization": b"Bearer " + key} if scheme == "bearer" else {b"x-api-key": key}
        probed = {**http_scope("10.0.0.1"), "method": "GET", "path": "/readyz"}
        return await admit(probed, sent)

    for _ in range(access.FREE_GUESSES):
        assert await probe(b"a-wrong-key-of-somebody") is STRANGER
    assert await probe(b"") is STRANGER
    assert slept == []
    assert await probe(b"a-wrong-key-of-somebody") is STRANGER
    assert slept == [access.GUESS_SECONDS]
    assert (await probe(KEYS["read"].encode())).name == "read"
    assert len(slept) == 1, "a right key is never delayed"
    guesses = access.FREE_GUESSES + 1
    assert value(metrics, "assay_auth_failures_total", reason="wrong") == guesses
    assert value(metrics, "assay_auth_failures_total", reason="missing") == 0


async def test_wrong_keys_of_more_addresses_than_are_kept_are_slowed_together(
    slept: list[float],
) -> None:
    refusals = Refusals(new_metrics(), lambda: 0.0)
    for number in range(access.MAX_LOGGED_ADDRESSES):
        await refusals.record(http_scope(f"2001:db8:0:{number:x}::1"), Unauthorized("no"))
    for number in range(access.FREE_GUESSES + 1):
        await refusals.record(http_scope(f"2001:db8:1:{number:x}::1"), Forbidden("no"))
    assert slept == [access.GUESS_SECONDS]


async def test_wrong_keys_of_an_address_are_answered_late_after_some(slept: list[float]) -> None:
    now = [0.0]
    refusals = Refusals(new_metrics(), lambda: now[0])
    for _ in range(access.FREE_GUESSES):
        await refusals.record(http_scope("10.0.0.1"), Forbidden("no"))
    assert slept == []
    await refusals.record(http_scope("10.0.0.1"), Forbidden("no"))
    assert slept == [access.GUESS_SECONDS]
    await refusals.record(http_scope("10.0.0.2"), Forbidden("no"))
    now[0] = access.LOG_SECONDS + 1
    await refusals.record(http_scope("10.0.0.1"), Forbidden("no"))
    assert len(slept) == 1


async def test_addresses_of_one_ipv6_site_count_together_and_the_log_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = new_metrics()
    refusals = Refusals(metrics, lambda: 0.0)
    for number in range(10):
        await refusals.record(http_scope(f"2001:db8::{number}"), Unauthorized("no"))
    assert caplog.text.count("refused 2001:db8::/64") == 1
    for number in range(2 * access.MAX_LOGGED_ADDRESSES):
        address = f"10.1.{number // 256}.{number % 256}"
        await refusals.record(http_scope(address), Unauthorized("no"))
    assert len(caplog.records) == access.MAX_LOGGED_ADDRESSES + 1, "and one for all others"
    assert value(metrics, "assay_auth_failures_total", reason="missing") == 10 + 2048
