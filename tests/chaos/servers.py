"""Real servers and raw connections to them, and the law that holds after each test here: one true
answer or one honest error for each request, and nothing left behind.
"""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import uvicorn
from support.doubles import value
from support.servers import free_port

from assay.api.components import components_of
from assay.app import create_app
from assay.settings import Settings

from .devices import SECONDS, eventually, happened, truth, until

MODEL = "scripted@1"
CROWD = 2000  # connections that are open at once


@dataclass(frozen=True)
class Answer:
    """One HTTP reply."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def scores(self) -> list[float | None]:
        """The items' scores; the reply must be a success."""
        assert self.status == 200, (self.status, self.body[:300])
        return [result["score"] for result in self.json["results"]]


def lawful(answer: Answer, texts: Sequence[str]) -> bool:
    """Whether all texts were scored. What was not must be an honest error, and none is invented."""
    if answer.status != 200:
        assert answer.status >= 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["status"] == answer.status
        assert answer.json["code"]
        return False
    results = answer.json["results"]
    assert [result["index"] for result in results] == list(range(len(texts)))
    for text, result in zip(texts, results, strict=True):
        if result["status"] == "ok":
            assert result["score"] == result["raw"] == truth(text)
            assert result["error"] is None
        else:
            assert (result["status"], result["score"], result["raw"]) == ("error", None, None)
            assert result["error"]["code"]
    return all(result["status"] == "ok" for result in results)


def asking(texts: Iterable[str], *headers: str, id_length: int = 0) -> bytes:
    """The bytes of one scoring request."""
    items = [{"text": text, "id": "i" * id_length or None} for text in texts]
    body = json.dumps({"model": "scripted", "items": items}).encode()
    return head(len(body), *headers) + body


def head(length: int, *headers: str) -> bytes:
    """The head of a scoring request whose body has so many bytes."""
    lines = ["POST /v1/score HTTP/1.1", "Host: assay", "Content-Type: application/json"]
    lines += [f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


class Connection:
    """One TCP connection to a server, and what can be done to it."""

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
        await self.closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next reply."""
        async with asyncio.timeout(SECONDS):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.partition(":") for line in lines[1:] if line)
            headers = {name.lower(): text.strip() for name, _, text in pairs}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(lines[0].split()[1]), headers, body)

    async def rest(self) -> bytes:
        """All bytes until the server closes."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        """Leave politely."""
        self.writer.close()

    async def closed(self) -> None:
        self.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Leave rudely: the server sees a reset and not an end."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Callers:
    """Opens connections to one port, and closes those that are still open in the end."""

    def __init__(self) -> None:
        self.port = 0
        self._opened: list[Connection] = []

    async def connect(self, receive_buffer: int | None = None) -> Connection:
        """One more connection."""
        self._opened.append(await Connection.open(self.port, receive_buffer))
        return self._opened[-1]

    async def call(self, texts: Sequence[str], *headers: str) -> Connection:
        """A connection over which these texts were asked."""
        connection = await self.connect()
        await connection.send(asking(texts, *headers))
        return connection

    async def ask(self, texts: Sequence[str], *headers: str) -> Answer:
        """One request over a connection of its own."""
        async with await self.call(texts, "Connection: close", *headers) as connection:
            return await connection.answer()

    async def get(self, path: str) -> Answer:
        async with await self.connect() as connection:
            await connection.send(
                f"GET {path} HTTP/1.1\r\nHost: assay\r\nConnection: close\r\n\r\n".encode()
            )
            return await connection.answer()

    async def hang_up(self) -> None:
        """Close what a test left open."""
        await asyncio.gather(*(connection.closed() for connection in self._opened))


class Server(Callers):
    """The service in a thread of its own, on the event loop that it has in production."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.port = free_port()
        self.app = create_app(settings)
        self.loop: asyncio.AbstractEventLoop
        self._own_tasks: set[asyncio.Task[Any]] = set()
        self._started = threading.Event()
        self.uvicorn = self._uvicorn(settings)
        self._thread = threading.Thread(target=self.uvicorn.run)

    def _uvicorn(self, settings: Settings) -> uvicorn.Server:
        server = self

        class Announcing(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                for served in components_of(server.app).service.models():
                    await served.loaded()
                server.loop = asyncio.get_running_loop()
                server._own_tasks = asyncio.all_tasks()
                server._started.set()

        return Announcing(
            uvicorn.Config(
                self.app, port=self.port, log_level="critical", lifespan="on", backlog=4096
            )
        )

    async def __aenter__(self) -> Self:
        self._thread.start()
        await happened(self._started)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.hang_up()
        self.uvicorn.should_exit = True
        await asyncio.to_thread(self._thread.join, SECONDS)
        assert not self._thread.is_alive(), "the server did not stop"

    def counted(self, name: str, **labels: str) -> float:
        """The value of one of the server's own series."""
        return value(components_of(self.app).metrics, name, **labels)

    @property
    def queued(self) -> float:
        """Tokens admitted and not yet settled."""
        return self.counted("assay_queue_tokens", model=MODEL)

    def requests(self) -> int:
        """Requests that are being served."""
        return len(self.uvicorn.server_state.tasks)

    async def orphans(self) -> list[str]:
        """Tasks of the server's loop that no request and no part of the server owns."""

        async def found() -> list[str]:
            mine = {*self._own_tasks, asyncio.current_task()}
            return [repr(task) for task in asyncio.all_tasks() if task not in mine]

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(found(), self.loop))

    async def at_rest(self) -> None:
        """Nothing pends: no request, no token in the queue, no task that nobody owns."""
        await until(lambda: self.requests() == 0 and self.queued == 0)

        async def no_orphans() -> bool:
            return not await self.orphans()

        await eventually(no_orphans)

    async def stands(self) -> None:
        """The second half of the law: nothing pends, and the server is ready and scores again."""
        await self.at_rest()
        assert (await self.get("/readyz")).status == 200
        assert (await self.ask(["and then"])).scores == [truth("and then")]
        await self.at_rest()


@asynccontextmanager
async def standing(settings: Settings) -> AsyncIterator[Server]:
    """A server that obeys the law when the block ends."""
    async with Server(settings) as server:
        yield server
        await server.stands()
