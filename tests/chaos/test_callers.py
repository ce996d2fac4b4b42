"""Callers that leave and servers that stop, over real sockets: nobody is stranded."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import uvicorn
from conftest import free_port
from doubles import ScriptedModel, value

from assay.app import create_app
from assay.settings import Settings
from assay_models.base import Input, Raw


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a state of the server that it does not announce."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    port = free_port()
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="on"))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    for served in app.state.service.models():
        await served.loaded()
    yield server, port
    server.should_exit = True
    await task


async def send(port: int, texts: list[str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": "scripted", "items": [{"text": text} for text in texts]}).encode()
    head = f"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    writer.write(
        f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body
    )
    await writer.drain()
    return reader, writer


async def received(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[float]:
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
    return [result["score"] for result in json.loads(answer.split(b"\r\n\r\n", 1)[1])["results"]]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Holds the scripted model's forward passes, except for the probe, until it is set."""
    opened = threading.Event()
    compute = ScriptedModel.predict

    def held(self: ScriptedModel, inputs: Sequence[Input]) -> list[Raw]:
        assert opened.wait(30)
        return compute(self, inputs)

    monkeypatch.setattr(ScriptedModel, "predict", held)
    return opened


async def test_callers_that_leave_strand_nobody(
    scripted_settings: Settings, gate: threading.Event
) -> None:
    async with listening(scripted_settings) as (_, port):
        callers = [await send(port, ["same", f"own {n}"]) for n in range(12)]
        for _, writer in callers[::3]:
            writer.close()
        gate.set()
        for number, (reader, writer) in enumerate(callers):
            if number % 3:
                assert await received(reader, writer) == [4.0, float(len(f"own {number}"))]


async def test_what_a_caller_left_behind_is_dropped_before_it_costs_compute(
    scripted_settings: Settings, gate: threading.Event
) -> None:
    async with listening(scripted_settings) as (server, port):
        metrics = server.config.app.state.metrics
        staying = await send(port, ["first"])
        await until(lambda: value(metrics, "assay_queue_tokens", model="scripted@1") == 5)
        leaving = await send(port, ["abandoned", "poison"])
        await until(lambda: value(metrics, "assay_queue_tokens", model="scripted@1") == 20)
        leaving[1].close()
        await until(lambda: value(metrics, "assay_queue_tokens", model="scripted@1") == 5)
        gate.set()
        assert await received(*staying) == [5.0]
        counted = {"model": "scripted@1", "reason": "abandoned"}
        assert value(metrics, "assay_dropped_total", **counted) == 2
        assert value(metrics, "assay_forwards_total", model="scripted@1", outcome="failed") == 0


async def test_a_full_queue_refuses_the_whole_request_and_says_when_to_come_back(
    scripted_settings: Settings, gate: threading.Event
) -> None:
    settings = scripted_settings.model_copy(update={"max_queue_tokens": 10})
    async with listening(settings) as (server, port):
        metrics = server.config.app.state.metrics
        first = await send(port, ["0123456"])
        await until(lambda: value(metrics, "assay_queue_tokens", model="scripted@1") == 7)
        reader, writer = await send(port, ["ab", "cd"])
        refusal = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        head, body = refusal.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 429")
        assert re.search(rb"retry-after: [1-9]", head.lower())
        assert json.loads(body)["code"] == "overloaded"
        assert value(metrics, "assay_queue_tokens", model="scripted@1") == 7, "nothing of it is in"
        gate.set()
        assert await received(*first) == [7.0]


async def test_shutdown_under_load_loses_nothing_that_was_accepted(
    scripted_settings: Settings, gate: threading.Event
) -> None:
    async with listening(scripted_settings) as (server, port):
        callers = [await send(port, [f"text {n}"]) for n in range(20)]
        await until(lambda: len(server.server_state.tasks) == 20)
        server.should_exit = True
        gate.set()
        answers = await asyncio.gather(*(received(*caller) for caller in callers))
        assert answers == [[float(len(f"text {n}"))] for n in range(20)]
