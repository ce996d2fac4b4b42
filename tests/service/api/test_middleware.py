"""Limits of bodies on servers of any HTTP version, and the count of rejected requests."""

from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from support.doubles import new_metrics, value
from support.servers import loaded

from assay.api.body_budget import BodyBudget
from assay.api.components import components_of
from assay.api.middleware import AccessMiddleware
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
        app,
        access=None,
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


@pytest.mark.parametrize(
    ("headers", "code", "series"),
    [
        ({}, "unauthorized", "assay_auth_failures_total/missing"),
        ({"X-API-Key": "wrong"}, "forbidden", "assay_auth_failures_total/wrong"),
        (
            {"X-API-Key": "k" * 32, "Content-Encoding": "br"},
            "unsupported_encoding",
            "assay_rejected_total/unsupported_encoding",
        ),
    ],
)
async def test_a_rejected_request_is_counted_once_by_its_reason(
    reference_settings: Settings, headers: dict[str, str], code: str, series: str
) -> None:
    keyed = reference_settings.model_copy(update={"api_keys": (SecretStr("k" * 32),)})
    async with loaded(keyed) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://assay") as client:
            answer = await client.post("/v1/score", content=b"{}", headers=headers)
        metrics = components_of(app).metrics
    assert answer.json()["code"] == code
    counted = {
        f"{sample.name}/{sample.labels['reason']}": sample.value
        for counter in (metrics.rejected, metrics.refusals)
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }
    assert counted == {series: 1}
    status = str(answer.status_code)
    assert value(metrics, "assay_requests_total", route="rejected", status=status) == 1
