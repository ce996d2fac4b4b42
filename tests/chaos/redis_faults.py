"""Servers in the place of Redis: a proxy that damages its replies, and one that is not Redis."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Literal

Mode = Literal["transparent", "hung", "cut", "late"]


class FaultyProxy:
    """A proxy between the service and a real Redis, which damages replies according to its mode.

    `hung` drops them, `cut` resets the connection within each, `late` delays each until the next
    command, when the service no longer waits for it.
    """

    def __init__(self, upstream: int) -> None:
        self.mode: Mode = "transparent"
        self.lookups = 0
        self.connections = 0
        self._upstream = upstream
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen on a free port; yield the URL."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        async with server:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
            for writer in self._writers:
                writer.close()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        upstream = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._writers += [writer, upstream[1]]
        late = bytearray()
        pumps: list[Awaitable[None]] = [
            self._forward_commands(reader, writer, upstream[1], late),
            self._forward_replies(upstream[0], writer, late),
        ]
        for pump in pumps:
            self._tasks.add(asyncio.ensure_future(pump))

    async def _forward_commands(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: asyncio.StreamWriter,
        late: bytearray,
    ) -> None:
        while data := await self._read(reader):
            self.lookups += data.count(b"MGET")
            if late:
                writer.write(bytes(late))
                late.clear()
            upstream.write(data)
        upstream.close()

    async def _forward_replies(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, late: bytearray
    ) -> None:
        while data := await self._read(upstream):
            if self.mode == "transparent":
                writer.write(data)
            elif self.mode == "late":
                late += data
            elif self.mode == "cut":
                writer.write(data[: len(data) // 2])
                await asyncio.sleep(0)
                linger = struct.pack("ii", 1, 0)
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(65536)
        except ConnectionError:
            return b""


GARBAGE = [
    b"$-1\r\n" * 50,
    b"*3\r\n$5\r\nhello\r\n$5\r\nhello\r\n$5\r\nhello\r\n",
    b":notanumber\r\n",
    b"$99999999999\r\nx",
    b"*999999999\r\n",
    b"+OK\r\n" * 3,
    b"-ERR no\r\n",
    b"\x00\xff\xfe rubbish \r\n\r\n",
    b"",
]


@asynccontextmanager
async def garbage_server(reply: bytes) -> AsyncIterator[str]:
    """Run a server that replies to everything with the same bytes, or closes the connection."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while await reader.read(65536) and reply:
                writer.write(reply)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        for writer in writers:
            writer.close()
