"""Raw bytes over sockets: requests with no end, and replies as they come."""

import json
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One HTTP reply. `headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


def replies_of(data: bytes) -> list[Reply]:
    """Return the replies in these bytes; fail if the last one is incomplete."""
    replies = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.lower(): text.strip() for name, _, text in pairs}
        length = int(headers.get("content-length", 0))
        status = int(lines[0].split()[1])
        assert len(rest) >= length, data
        if status >= 200:
            replies.append(Reply(status, headers, rest[:length]))
        data = rest[length:]
    return replies


def read_reply(connection: socket.socket) -> Reply:
    """Return the next reply."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    while length is not None and len(body) < int(length[1]):
        body += receive(connection)
    (reply,) = replies_of(head + b"\r\n\r\n" + body)
    return reply


def receive(connection: socket.socket) -> bytes:
    """Return the next bytes; fail at the end of the connection."""
    data = connection.recv(1 << 16)
    assert data, "the server closed the connection"
    return data


def read_all(connection: socket.socket) -> bytes:
    """Return what arrives until the server closes; fail if it does not close in time."""
    data = b""
    with suppress(ConnectionError):
        while part := connection.recv(1 << 20):
            data += part
    return data


def send_all(connection: socket.socket, parts: Iterable[bytes]) -> int:
    """Send parts until the server stops reading or closes; return the number of bytes sent."""
    sent = 0
    with suppress(OSError):
        for part in parts:
            connection.sendall(part)
            sent += len(part)
    return sent
