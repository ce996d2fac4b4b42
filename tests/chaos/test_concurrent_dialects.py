"""Many concurrent callers of each dialect, with one item and one new connection each.

Each gets the score of its own item, or an error.
"""

import asyncio
import json
import zlib
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from support.dialect_clients import DIALECT_CLIENTS, DialectClient
from support.dialect_messages import same_reply
from support.tiers import NIGHTLY

from assay.settings import Settings
from assay_models.base import Input, Raw

from .devices import ScriptedDevice, install_device, wait_until
from .servers import MANY, Reply, Server, checked_server

pytestmark = pytest.mark.slow

CALLERS = MANY if NIGHTLY else MANY // 5
FAILURE_PERIOD = 100
"""Of every hundred callers, one gets NaN and one a forward pass that raises."""


def raw_of(text: str) -> float:
    """Return a number that is unique to the text, also after the logistic function."""
    return zlib.crc32(text.encode()) / 2**30 - 2


class SmallNumberDevice(ScriptedDevice):
    """A device whose raws are small enough for the logistic function to keep them distinct."""

    def __call__(self, inputs: Sequence[Input]) -> list[Raw]:
        raws = super().__call__(inputs)
        texts = [row.payload for row in inputs]
        return [
            (raw_of(text),) if text.startswith("caller") else raw
            for text, raw in zip(texts, raws, strict=True)
        ]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SmallNumberDevice:
    device = SmallNumberDevice()
    install_device(monkeypatch, device)
    return device


class ConnectionClient:
    """A client for a dialect's `fetch_result`, with a new connection for each request."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def request(self, method: str, url: str, json: object) -> httpx2.Response:
        async with await self._server.connect() as connection:
            await connection.send(request_of(method, url, json))
            return response_of(url, await connection.read_reply())


def request_of(method: str, target: str, body: object) -> bytes:
    content = json.dumps(body).encode().replace(b"{model}", b"scripted")
    lines = [f"{method} {target} HTTP/1.1", "Host: assay", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def response_of(url: str, reply: Reply) -> httpx2.Response:
    request = httpx2.Request("POST", f"http://assay{url}")
    return httpx2.Response(reply.status, content=reply.body, request=request)


def text_of(number: int) -> str:
    """Return the text of caller `number`; see `FAILURE_PERIOD`."""
    fault = {0: "nan ", 1: "poison "}.get(number % FAILURE_PERIOD, "")
    return f"{fault}caller {number}"


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("dialect", DIALECT_CLIENTS, ids=lambda dialect: dialect.name)
async def test_concurrent_callers_each_get_their_own_score_or_an_error(
    scripted_settings: Settings, device: SmallNumberDevice, dialect: DialectClient
) -> None:
    url = dialect.route.format(model="scripted")
    async with checked_server(scripted_settings) as server:
        callers = await asyncio.gather(*(server.connect() for _ in range(CALLERS)))
        device.hold()
        for number, caller in enumerate(callers):
            body = dialect.build_body([("Say it.", text_of(number))])
            await caller.send(request_of("POST", url, body))
        if dialect.fetch_result is same_reply:
            await wait_until(lambda: server.active_requests() == CALLERS)
        device.release()
        replies = await asyncio.gather(*(caller.read_reply() for caller in callers))
        client: Any = ConnectionClient(server)
        responses = await asyncio.gather(
            *(dialect.fetch_result(client, response_of(url, reply)) for reply in replies)
        )
        for text, response in zip(map(text_of, range(CALLERS)), responses, strict=True):
            if text.startswith("caller"):
                expected = dialect.transform(raw_of(text))
                assert dialect.read_scores(response.json()) == pytest.approx([expected], abs=1e-12)
                assert device.rows[text] == 1
            else:
                error = dialect.read_item_error(response)
                assert error.startswith(("non_finite", "inference_failed"))
