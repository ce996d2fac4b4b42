"""Callers that leave and servers that stop, over real sockets: nobody is stranded."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import uvicorn
from conftest import free_port
from doubles import ScriptedModel

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
