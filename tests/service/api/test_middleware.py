"""Limits of bodies and headers on servers of any HTTP version, and the end of unfinished bodies."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from support.doubles import new_metrics
from support.servers import Served

from assay.api.components import components_of
from assay.api.middleware import MAX_HEADER_BYTES, AccessMiddleware, UnfinishedBodies
from assay.app import create_app
from assay.settings import Settings

MAX_BODY_BYTES = 100
LARGE = [b"x" * 60, b"x" * 60]


async def status_of(
    headers: Mapping[str, str], chunks: list[bytes], http_version: str = "1.1"
) -> tuple[int, bytes]:
    """Send a body in chunks past any server; return the status, and the body that the app read."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []
    read = b""

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        more = True
        while more:
            message = await receive()
            read += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    middleware = AccessMiddleware(
        app, access=None, max_body_bytes=MAX_BODY_BYTES, metrics=new_metrics()
    )
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/score",
        "http_version": http_version,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await middleware(scope, receive, send)
    return sent[0]["status"], read


@pytest.mark.parametrize(
    ("headers", "http_version"),
    [
        ({"content-length": "120"}, "1.1"),
        ({"transfer-encoding": "chunked"}, "1.1"),
        ({"content-length": "5", "transfer-encoding": "chunked"}, "1.1"),
        ({"content-length": "-5"}, "1.1"),
        ({}, "2"),
    ],
)
async def test_a_large_body_is_refused_before_the_app_reads_it(
    headers: Mapping[str, str], http_version: str
) -> None:
    assert await status_of(headers, LARGE, http_version) == (413, b"")


@pytest.mark.parametrize(
    ("headers", "http_version"),
    [
        ({"content-length": "6"}, "1.1"),
        ({"transfer-encoding": "chunked"}, "1.1"),
        ({"content-length": "6", "transfer-encoding": "chunked"}, "1.1"),
        ({}, "2"),
    ],
)
async def test_a_small_body_reaches_the_app_whole(
    headers: Mapping[str, str], http_version: str
) -> None:
    assert await status_of(headers, [b"abc", b"def"], http_version) == (200, b"abcdef")


async def test_headers_that_are_too_large_are_named_as_such(
    served: Served, reference_settings: Settings
) -> None:
    async with served(reference_settings) as client:
        answer = await client.get("/healthz", headers={"X-Long": "x" * MAX_HEADER_BYTES})
    assert (answer.status_code, answer.json()["code"]) == (431, "headers_too_large")
    assert str(MAX_HEADER_BYTES) in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/score", "/v2/models/reference/infer", "/rerank"])
@pytest.mark.parametrize("length", [{"content-length": "99"}, {"transfer-encoding": "chunked"}])
async def test_a_shutdown_answers_a_request_whose_body_is_unfinished(
    reference_settings: Settings, path: str, length: dict[str, str]
) -> None:
    app = create_app(reference_settings)
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]
    sent: list[Any] = []
    is_waiting = asyncio.Event()

    async def receive() -> Any:
        if messages:
            return messages.pop()
        is_waiting.set()
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {"content-type": "application/json", **length}
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    async with app.router.lifespan_context(app):
        request = asyncio.create_task(app(scope, receive, send))
        await is_waiting.wait()
        components_of(app).end_bodies()
        await request
    assert sent[0]["status"] == 503
    problem = json.loads(sent[1]["body"])
    assert (problem["code"], problem["retryable"]) == ("shutting_down", True)


async def test_a_cancelled_request_stays_cancelled() -> None:
    async def receive() -> Any:
        return await asyncio.Event().wait()

    reading = asyncio.ensure_future(UnfinishedBodies().watched(receive)())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
