"""FaultProxy: an HTTP proxy in front of a real engine that damages some replies."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from support.reply_damages import DAMAGES, Damage, change, entries, set_number

Fault = Literal[
    "none",
    "latency",
    "reset before the request",
    "reset before the status",
    "reset in the body",
    "closed in the body",
    "half a body",
    "a page",
    "NaN",
    "busy",
    "restarting",
    "broken",
    "refused",
    "wrong JSON",
    "wrong count",
    "a text for a number",
    "swapped",
    "doubled",
    "stale",
    "answered twice",
]

STATUSES: dict[Fault, int] = {"busy": 429, "restarting": 503, "broken": 500, "refused": 400}
JSON_DAMAGES: dict[Fault, Damage] = {
    "wrong JSON": DAMAGES["null for the list"],
    "wrong count": DAMAGES["one entry fewer"],
    "a text for a number": set_number("0.5"),
    "swapped": change(lambda rows: rows.reverse()),
    "doubled": change(lambda rows: rows.__setitem__(-1, rows[0])),
}
UNSEEN_BY_POSITION: frozenset[Fault] = frozenset(("swapped", "doubled", "stale"))
"""Faults that a protocol without index and id cannot show in a call."""


@dataclass(frozen=True)
class Message:
    """The head and the body of a request or a reply."""

    head: bytes
    body: bytes


@dataclass
class FaultProxy:
    """A proxy between an engine's client and a real server.

    Args:
        upstream: the port of the server.
        faults: the fault of each POST, in order; a GET has none.
    """

    upstream: int
    faults: Iterator[Fault]
    injected: list[Fault] = field(default_factory=list)
    url: str = ""
    _earlier: dict[int, Message] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["FaultProxy"]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_message(reader)) is not None:
                fault = next(self.faults) if request.head.startswith(b"POST") else "none"
                self.injected.append(fault)
                if not await self._answer(request, writer, fault):
                    break
        except ConnectionError:
            pass  # the client left
        finally:
            writer.close()

    async def _answer(self, request: Message, writer: asyncio.StreamWriter, fault: Fault) -> bool:
        """Answer one request; return whether the connection stays open."""
        if fault == "reset before the request":
            return reset(writer)
        reply = await self._forward(request)
        stale = self._exchange(reply)
        if fault == "reset before the status":
            return reset(writer)
        if fault == "latency":
            await asyncio.sleep(0.002)
        if fault == "stale" and stale is not None:
            reply = stale
        reply = damaged(reply, fault)
        if fault in ("reset in the body", "closed in the body"):
            writer.write(reply.head + reply.body[: len(reply.body) // 2])
            await writer.drain()
            return reset(writer) if fault == "reset in the body" else False
        times = 2 if fault == "answered twice" else 1
        writer.write((reply.head + reply.body) * times)
        await writer.drain()
        return True

    def _exchange(self, reply: Message) -> Message | None:
        """Return the last reply before this one with as many entries, and keep this one."""
        if not reply.head.startswith(b"HTTP/1.1 200"):
            return None
        value = orjson.loads(reply.body)
        if isinstance(value, dict) and not {"data", "results"} & value.keys():
            return None
        count = len(entries(value))
        earlier, self._earlier[count] = self._earlier.get(count), reply
        return earlier

    async def _forward(self, request: Message) -> Message:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            writer.write(request.head + request.body)
            reply = await read_message(reader)
            assert reply is not None, "the server behind the proxy left"
            return reply
        finally:
            writer.close()


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """Return the next message with a `Content-Length`; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return Message(head, await reader.readexactly(length))


def damaged(reply: Message, fault: Fault) -> Message:
    """Return the reply with a fault of its status or its body."""
    if fault in STATUSES:
        status = b"HTTP/1.1 %d Fault" % STATUSES[fault]
        return with_body(status, b'{"error": {"message": "a text that quotes"}}')
    if fault == "a page":
        return with_body(b"HTTP/1.1 200 OK", b"<html><body>Sign in</body></html>")
    if fault == "answered twice":
        return with_body(b"HTTP/1.1 200 OK", reply.body)
    if fault == "half a body":
        return with_body(b"HTTP/1.1 200 OK", reply.body[: len(reply.body) // 2])
    if fault == "NaN":
        body = orjson.dumps(set_number("@")(orjson.loads(reply.body)))
        return with_body(b"HTTP/1.1 200 OK", body.replace(b'"@"', b"NaN"))
    damage: Callable[[Any], Any] | None = JSON_DAMAGES.get(fault)
    if damage is None or not reply.head.startswith(b"HTTP/1.1 200"):
        return reply
    return with_body(b"HTTP/1.1 200 OK", orjson.dumps(damage(orjson.loads(reply.body))))


def with_body(status: bytes, body: bytes) -> Message:
    """Return a whole reply."""
    return Message(status + b"\r\ncontent-length: %d\r\n\r\n" % len(body), body)


def reset(writer: asyncio.StreamWriter) -> bool:
    """Reset the connection, so that the client does not read an end."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
