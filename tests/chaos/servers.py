"""Real servers and raw connections to them, and checks of both.

After each test, every request has one true score or one error, and the server is idle and serves.
"""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import uvicorn
from support import raw_requests
from support.doubles import value
from support.servers import free_port, http_protocol

from assay.api.components import components_of
from assay.app import create_app
from assay.settings import Settings

from .devices import TIMEOUT_SECONDS, true_score, wait_for_event, wait_until, wait_until_async

MODEL = "scripted@1"
MANY = 2000
"""Connections that are open at once."""


class Reply(raw_requests.Reply):
    """One HTTP reply to a scoring request."""

    @property
    def scores(self) -> list[float | None]:
        """The items' scores; the reply must be a success."""
        assert self.status == 200, (self.status, self.body[:300])
        return [result["score"] for result in self.json["results"]]


def all_scored(reply: Reply, texts: Sequence[str]) -> bool:
    """Return whether all texts were scored.

    Fails if a score is wrong, or if a text without a score has no error.
    """
    if reply.status != 200:
        assert reply.status >= 400
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json["status"] == reply.status
        assert reply.json["code"]
        return False
    results = reply.json["results"]
    assert [result["index"] for result in results] == list(range(len(texts)))
    for text, result in zip(texts, results, strict=True):
        if result["status"] == "ok":
            assert result["score"] == result["raw"] == true_score(text)
            assert result["error"] is None
        else:
            assert (result["status"], result["score"], result["raw"]) == ("error", None, None)
            assert result["error"]["code"]
    return all(result["status"] == "ok" for result in results)


def score_request(texts: Iterable[str], *headers: str, id_length: int = 0) -> bytes:
    """Return the bytes of one scoring request."""
    items = [{"text": text, "id": "i" * id_length or None} for text in texts]
    body = json.dumps({"model": "scripted", "items": items}).encode()
    return request_head(len(body), *headers) + body


def request_head(length: int, *headers: str) -> bytes:
    """Return the head of a scoring request whose body has `length` bytes."""
    lines = ["POST /v1/score HTTP/1.1", "Host: assay", "Content-Type: application/json"]
    lines += [f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


class Connection:
    """One TCP connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, receive_buffer: int | None = None) -> Self:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        return cls(*await asyncio.open_connection(sock=sock))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close_and_wait()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_reply(self) -> Reply:
        """Read the next reply."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.partition(":") for line in lines[1:] if line)
            headers = {name.lower(): text.strip() for name, _, text in pairs}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(int(lines[0].split()[1]), headers, body)

    async def read_rest(self) -> bytes:
        """Read all bytes until the server closes."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        """Close the connection in the ordinary way (FIN)."""
        self.writer.close()

    async def close_and_wait(self) -> None:
        self.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Abort the connection: the server sees a reset (RST) and not an end."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Connections:
    """The connections to one port; those that are still open are closed at the end."""

    def __init__(self) -> None:
        self.port = 0
        self._opened: list[Connection] = []

    async def connect(self, receive_buffer: int | None = None) -> Connection:
        """Open another connection."""
        self._opened.append(await Connection.open(self.port, receive_buffer))
        return self._opened[-1]

    async def start_request(self, texts: Sequence[str], *headers: str) -> Connection:
        """Send a scoring request over a connection of its own, without reading the reply."""
        connection = await self.connect()
        await connection.send(score_request(texts, *headers))
        return connection

    async def score(self, texts: Sequence[str], *headers: str) -> Reply:
        """Send a scoring request over a connection of its own, and read the reply."""
        async with await self.start_request(texts, "Connection: close", *headers) as connection:
            return await connection.read_reply()

    async def get(self, path: str) -> Reply:
        """Send a GET request over a connection of its own, and read the reply."""
        async with await self.connect() as connection:
            await connection.send(
                f"GET {path} HTTP/1.1\r\nHost: assay\r\nConnection: close\r\n\r\n".encode()
            )
            return await connection.read_reply()

    async def close_all(self) -> None:
        """Close the connections that a test left open."""
        await asyncio.gather(*(connection.close_and_wait() for connection in self._opened))


class Server(Connections):
    """The service in a thread of its own, with the event loop that it has in production."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.port = free_port()
        self.app = create_app(settings)
        self.loop: asyncio.AbstractEventLoop
        self._own_tasks: set[asyncio.Task[Any]] = set()
        self._started = threading.Event()
        self.uvicorn = self._create_uvicorn()
        self._thread = threading.Thread(target=self.uvicorn.run)

    def _create_uvicorn(self) -> uvicorn.Server:
        on_startup = self.on_startup
        connections, http = http_protocol(self.app)

        class NotifyingServer(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                connections.start()
                await on_startup()

        return NotifyingServer(
            uvicorn.Config(
                self.app,
                port=self.port,
                log_level="critical",
                lifespan="on",
                backlog=4096,
                http=http,
                ws="none",
            )
        )

    async def on_startup(self) -> None:
        """Wait for the models, and remember the tasks of an idle server; runs in its event loop."""
        for served in components_of(self.app).service.models():
            await served.loaded()
        self.loop = asyncio.get_running_loop()
        self._own_tasks = asyncio.all_tasks()
        self._started.set()

    async def __aenter__(self) -> Self:
        self._thread.start()
        await wait_for_event(self._started)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close_all()
        self.uvicorn.should_exit = True
        await asyncio.to_thread(self._thread.join, TIMEOUT_SECONDS)
        assert not self._thread.is_alive(), "the server did not stop"

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric of the server."""
        return value(components_of(self.app).metrics, name, **labels)

    @property
    def queued_tokens(self) -> float:
        """The tokens that are admitted and not yet settled."""
        return self.metric("assay_queue_tokens", model=MODEL)

    def active_requests(self) -> int:
        """Return the number of requests that are being served."""
        return len(self.uvicorn.server_state.tasks)

    async def orphan_tasks(self) -> list[str]:
        """Return the tasks of the server's loop that belong to no request and no part of it."""

        async def read_tasks() -> list[str]:
            known = {*self._own_tasks, asyncio.current_task()}
            return [repr(task) for task in asyncio.all_tasks() if task not in known]

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(read_tasks(), self.loop))

    async def wait_until_idle(self) -> None:
        """Wait until there are no requests, no queued tokens, and no orphan tasks."""
        await wait_until(lambda: self.active_requests() == 0 and self.queued_tokens == 0)

        async def no_orphans() -> bool:
            return not await self.orphan_tasks()

        await wait_until_async(no_orphans)

    async def check_serving(self) -> None:
        """Check that the server becomes idle, is ready, and scores again."""
        await self.wait_until_idle()
        assert (await self.get("/readyz")).status == 200
        assert (await self.score(["and then"])).scores == [true_score("and then")]
        await self.wait_until_idle()


@asynccontextmanager
async def checked_server(settings: Settings) -> AsyncIterator[Server]:
    """Run a server; check after the block that it becomes idle, is ready, and scores again."""
    async with Server(settings) as server:
        yield server
        await server.check_serving()
