"""A minimal HTTP/1.1 client: one request at a time on a connection, and the reply's bytes."""

import asyncio
from typing import cast


class ConnectionLost(Exception):
    """The server closed the connection before the reply was complete."""


class MalformedReply(Exception):
    """A reply that is not HTTP/1.1 with a length or in chunks."""


class Connection(asyncio.Protocol):
    """A connection to the server."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[tuple[int, bytes]] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; the event loop calls this."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """Send one request; return the status and the body of its reply.

        Raises:
            ConnectionLost: the server closed the connection before.
            MalformedReply: the reply is not HTTP as expected.
        """
        assert self._transport is not None
        self._buffer = b""
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._reply

    def close(self) -> None:
        """Close the connection."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read a part of the reply; the event loop calls this."""
        self._buffer = self._buffer + data if self._buffer else data
        future = self._reply
        if future is None or future.done():
            return
        try:
            reply = parse_reply(self._buffer)
        except MalformedReply as error:
            future.set_exception(error)
            return
        if reply is not None:
            future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the pending request; the event loop calls this."""
        self.is_open = False
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionLost("the server hung up"))


def parse_reply(data: bytes) -> tuple[int, bytes] | None:
    """Return status and body of a reply, or None while it is incomplete.

    Raises:
        MalformedReply: there is neither a length nor chunks.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    status = _status(head)
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        line_end = head.find(b"\r\n", at + 2)
        size = int(head[at + 17 : line_end if line_end >= 0 else len(head)])
        body = data[end + 4 :]
        return (status, body) if len(body) >= size else None
    if b"\r\ntransfer-encoding: chunked" in head:
        chunks = _join_chunks(data, end + 4)
        return None if chunks is None else (status, chunks)
    raise MalformedReply("a reply without a length")


def _status(head: bytes) -> int:
    if not head.startswith(b"http/1.") or not head[9:12].isdigit():
        raise MalformedReply("no status line")
    return int(head[9:12])


def _join_chunks(data: bytes, at: int) -> bytes | None:
    parts: list[bytes] = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(data[at:end].split(b";")[0], 16)
        if len(data) < end + 2 + size + 2:
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
