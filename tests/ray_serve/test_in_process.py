"""Requests to the app in its own process: they get what requests over HTTP get."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI
from support.servers import loaded

from assay.settings import Settings
from assay_ray.in_process import call_app

KEY = "a-key-of-sixteen-characters"
ITEM = {"prompt": "sort a list", "response": "sort it"}


@pytest.fixture
async def app() -> AsyncIterator[FastAPI]:
    async with loaded(Settings(models=("reference",), runs="off", api_keys=(KEY,))) as started:
        yield started


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/score", {"model": "reference", "items": [ITEM]}, 200),
        ("POST", "/v1/score?run=mine", {"model": "reference", "items": [ITEM]}, 200),
        ("POST", "/v1/score", {"model": "reference", "items": [{**ITEM, "response": 1}]}, 422),
        ("POST", "/v1/best-of-n", {"model": "reference", "candidates": ["a"], "prompt": "a"}, 200),
        ("POST", "/v1/score", {"model": "absent", "items": [ITEM]}, 404),
        ("POST", "/v1/score", [], 422),
        ("GET", "/v1/models/reference%401", None, 200),
        ("GET", "/readyz", None, 200),
        ("HEAD", "/healthz", None, 200),
        ("GET", "/absent", None, 404),
        ("PUT", "/v1/score", None, 405),
    ],
)
async def test_call_returns_what_http_returns(
    app: FastAPI, method: str, path: str, body: object, status: int
) -> None:
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-ID": "mine"}
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    typed = {**headers, "Content-Type": "application/json"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for _ in range(2):  # the second time both find the score cached
            reply = await client.request(method, path, content=content, headers=typed)
    got = await call_app(app, method, path, headers, content)
    assert (got[0], got[1].get("content-type")) == (status, reply.headers.get("content-type"))
    assert reply.status_code == status
    assert _constant(got[2]) == _constant(reply.content)


async def test_call_without_a_key_is_refused(app: FastAPI) -> None:
    status, headers, content = await call_app(app, "GET", "/v1/models", {}, b"")
    assert status == 401
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(content)["code"] == "unauthorized"


async def test_cancelled_call_ends_the_request() -> None:
    ended = asyncio.Event()
    entered = asyncio.Event()

    async def app(scope: object, receive: object, send: object) -> None:
        entered.set()
        try:
            await asyncio.Future()
        finally:
            ended.set()

    call = asyncio.create_task(call_app(app, "GET", "/", {}, b""))
    await entered.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended.is_set()


def _constant(content: bytes) -> object:
    """Return the body without what differs between two equal requests."""
    try:
        value = json.loads(content)
    except ValueError:
        return content
    return {name: part for name, part in value.items() if name not in ("id", "timing")}
