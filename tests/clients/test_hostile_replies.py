"""Replies of a hostile or broken server: the deadline and the memory of a call are bounded."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, repeat
from typing import Any

import pytest

from assay_client import APITimeoutError, AssayError, ProtocolError

ITEMS = [{"value": 1.0}]
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
DRIP_SECONDS = 0.02

Parts = Callable[[], Iterator[bytes]]

DRIPPING: dict[str, Parts] = {
    "head": lambda: chain([HEAD + b"X-A: "], repeat(b"a")),
    "status line": lambda: chain([b"HTTP/1.1 200 "], repeat(b"O")),
    "informational replies": lambda: repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": lambda: chain([HEAD + b"Content-Length: 100000\r\n\r\n"], repeat(b" ")),
    "chunk extension": lambda: chain([CHUNKED + b"5;a="], repeat(b"a")),
    "chunks": lambda: chain([CHUNKED], repeat(b"1\r\n \r\n")),
}


class RawServer:
    """A server that sends the same parts to every connection, whatever it is sent."""

    def __init__(self, parts: Parts, pause: float) -> None:
        self._parts, self._pause = parts, pause
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._over.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            for part in self._parts():
                if self._over.wait(self._pause):
                    return
                connection.sendall(part)
                self.sent += len(part)


@pytest.fixture
def serve() -> Iterator[Callable[[Parts, float], RawServer]]:
    servers: list[RawServer] = []

    def start(parts: Parts, pause: float) -> RawServer:
        servers.append(RawServer(parts, pause))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("place", DRIPPING)
def test_a_reply_that_drips_anywhere_raises_a_timeout(place: str, serve: Any, connect: Any) -> None:
    server = serve(DRIPPING[place], DRIP_SECONDS)
    with pytest.raises(APITimeoutError):
        connect(server.url, timeout=0.5).score("code", ITEMS)


def test_a_second_reply_that_drips_on_a_kept_connection_raises_a_timeout(
    server: Any, connect: Any, canned: Any
) -> None:
    client = connect(server.url, timeout=5.0)
    client.score("code", ITEMS)
    server.script.append(canned.answer(200, b" " * 10_000, trickle=DRIP_SECONDS))
    with pytest.raises(APITimeoutError):
        client.score("code", ITEMS, timeout=0.5)
    assert server.received[0].peer == server.received[1].peer


def test_a_reply_without_end_is_refused_at_the_limit(serve: Any, connect: Any) -> None:
    chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    server = serve(lambda: chain([CHUNKED], repeat(chunk)), 0.0)
    client = connect(server.url, max_retries=0, max_reply_bytes=4 * 2**20)
    with pytest.raises(ProtocolError, match="larger than 4194304 bytes"):
        client.score("code", ITEMS)
    assert server.sent < 64 * 2**20


def test_a_compressed_reply_is_bounded_by_its_full_size(
    server: Any, connect: Any, canned: Any
) -> None:
    body = gzip.compress(bytes(64 * 2**20))
    server.script.append(canned.answer(200, body, {"Content-Encoding": "gzip"}))
    client = connect(server.url, max_retries=0, max_reply_bytes=2**20)
    with pytest.raises(ProtocolError, match="larger than 1048576 bytes"):
        client.score("code", ITEMS)


def test_a_compressed_reply_below_the_limit_is_read(server: Any, connect: Any, canned: Any) -> None:
    def compressed(received: Any) -> Any:
        plain = canned.default_answer(received)
        headers = {**plain.headers, "Content-Encoding": "gzip"}
        return canned.answer(200, gzip.compress(plain.body), headers)

    server.script.append(compressed)
    assert connect(server.url).score("code", ITEMS).scores == [1.0]


@pytest.mark.parametrize("damage", ["cut", "br"])
def test_a_compressed_reply_that_cannot_be_read_raises_a_protocol_error(
    damage: str, server: Any, connect: Any, canned: Any
) -> None:
    body = gzip.compress(b" " * 1000)
    answer = {
        "cut": canned.answer(200, body[:-9], {"Content-Encoding": "gzip"}),
        "br": canned.answer(200, body, {"Content-Encoding": "br"}),
    }[damage]
    server.script.append(answer)
    with pytest.raises(ProtocolError, match=r"cannot be decoded|encoding 'br'"):
        connect(server.url, max_retries=0).score("code", ITEMS)


@pytest.mark.parametrize(
    ("asked", "replied"), [("code", "evil@9"), ("code@1", "code@2"), ("code", "codex@1")]
)
def test_scores_of_another_model_are_refused(
    asked: str, replied: str, server: Any, connect: Any, canned: Any
) -> None:
    def of_another(received: Any) -> Any:
        return canned.json({**canned.score_reply(received.body["items"]), "model": replied})

    server.always = of_another
    with pytest.raises(AssayError, match=f"scores of '{replied}', not of '{asked}'"):
        connect(server.url, max_retries=0).score(asked, ITEMS)
