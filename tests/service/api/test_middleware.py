"""Limits of bodies on servers of any HTTP version."""

from collections.abc import Mapping
from typing import Any

import pytest
from support.doubles import new_metrics

from assay.api.body_budget import BodyBudget
from assay.api.middleware import AccessMiddleware

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
        app,
        keys=(),
        public_paths=(),
        max_body_bytes=MAX_BODY_BYTES,
        metrics=new_metrics(),
        bodies=BodyBudget(MAX_BODY_BYTES),
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
