"""Requests without an end against a real server: their memory, their status, and their close."""

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import psutil
import pytest
from support.processes import Server, serving
from support.raw_requests import read_all, replies_of, send_all

from assay.server.protocol import MAX_HEADER_BYTES, MAX_PIPELINED, MAX_TARGET_BYTES

MIB = 1 << 20
GET = b"GET /healthz HTTP/1.1\r\nHost: assay\r\n"
CHUNKED = b"POST /v1/score HTTP/1.1\r\nHost: assay\r\nTransfer-Encoding: chunked\r\n\r\n"
SENT_BYTES = 60 * MIB
PART = 256 * 1024

ENDLESS = {
    "tiny headers": (GET, b"a:\r\n", 431),
    "headers": (GET, b"X-Header: " + b"y" * 90 + b"\r\n", 431),
    "a header value": (GET + b"X-Long: ", b"y" * 100, 431),
    "a header name": (GET, b"n" * 100, 431),
    "a target": (b"GET /", b"a" * 100, 414),
    "a query": (b"GET /healthz?", b"a=b&" * 25, 414),
    "trailers": (CHUNKED + b"0\r\n", b"X-Trailer: y\r\n", 400),
    "a trailer": (CHUNKED + b"0\r\nX-Trailer: ", b"y" * 100, 400),
    "a chunk extension": (CHUNKED + b"1;name=", b"e" * 100, 400),
    "chunks of a byte": (CHUNKED, b"1\r\n \r\n", 400),
    "chunk extensions": (CHUNKED, b"1;" + b"e" * 100 + b"\r\n \r\n", 400),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--port", "0", ASSAY_IO_TIMEOUT="20") as server:
        httpx2.get(f"{server.url}/healthz")
        yield server


class PeakMemory:
    """The most memory that a process holds while the block runs, above what it held before."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = self.peak = 0

    @property
    def growth(self) -> int:
        """Bytes."""
        return self.peak - self.before

    def __enter__(self) -> "PeakMemory":
        self.before = self.peak = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self.peak = max(self.peak, self._process.memory_info().rss)


def open_connections(server: Server) -> int:
    """Return the number of connections that the server holds, and not the question's own."""
    text = httpx2.get(f"{server.url}/metrics").text
    match = re.search(r"^assay_connections (\S+)$", text, re.M)
    assert match is not None
    return int(float(match[1])) - 1


def parts_of(unit: bytes) -> Iterator[bytes]:
    """Yield `SENT_BYTES` of a unit, in large parts."""
    part = unit * (PART // len(unit))
    return itertools.repeat(part, SENT_BYTES // len(part))


@pytest.mark.parametrize("name", ENDLESS)
def test_a_request_without_end_is_refused_and_takes_no_memory(server: Server, name: str) -> None:
    begin, unit, status = ENDLESS[name]
    with PeakMemory(server.process.pid) as memory, server.connect() as connection:
        connection.sendall(begin)
        sending = threading.Thread(target=send_all, args=(connection, parts_of(unit)))
        sending.start()
        (reply,) = replies_of(read_all(connection))
        sending.join()
    assert (reply.status, reply.headers["connection"]) == (status, "close")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["status"] == status
    assert memory.growth < 2 * MIB
    assert httpx2.get(f"{server.url}/healthz").status_code == 200


def test_unfinished_requests_take_less_than_1_mib_each(server: Server) -> None:
    count = 100
    kept = [  # all that a connection may hold without being refused
        GET + b"a:\r\n" * 250,
        GET + b"X-Long: " + b"y" * (MAX_HEADER_BYTES - 100),
        GET + b"n" * (MAX_HEADER_BYTES - 100),
        b"GET /" + b"a" * (MAX_TARGET_BYTES - 100),
        CHUNKED + b"0\r\nX-Trailer: " + b"y" * 60_000,
        CHUNKED + b"1;name=" + b"e" * 60_000,
        CHUNKED + b"ffff\r\n" + b" " * 60_000,
    ]
    for begin in kept:
        with ExitStack() as stack, PeakMemory(server.process.pid) as memory:
            connections = [stack.enter_context(server.connect()) for _ in range(count)]
            for connection in connections:
                connection.sendall(begin)
            while open_connections(server) < count:
                pass
            assert httpx2.get(f"{server.url}/healthz").status_code == 200
        assert memory.growth < count * MIB


def test_requests_pipelined_without_reading_replies_are_bounded(server: Server) -> None:
    request = GET + b"\r\n"
    with PeakMemory(server.process.pid) as memory, server.connect() as connection:
        connection.sendall(request * 20_000)
        replies = replies_of(read_all(connection))
    assert 1 <= len(replies) <= MAX_PIPELINED + 1
    assert {reply.status for reply in replies} == {200}
    assert replies[-1].headers["connection"] == "close"
    assert memory.growth < 2 * MIB


@pytest.mark.parametrize(
    ("count", "size", "status"),
    [(1, MAX_HEADER_BYTES, 431), (1, MAX_HEADER_BYTES - 200, 200), (250, 10, 200), (260, 10, 431)],
)
def test_headers_beyond_the_limits_are_named_as_such(
    server: Server, count: int, size: int, status: int
) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"x" * size) for number in range(count))
    with server.connect() as connection:
        connection.sendall(GET + b"Connection: close\r\n" + lines + b"\r\n")
        (reply,) = replies_of(read_all(connection))
    assert reply.status == status
    if status == 431:
        assert reply.json["code"] == "headers_too_large"
        assert str(MAX_HEADER_BYTES) in reply.json["detail"]


def test_trailers_do_not_reach_the_request(server: Server) -> None:
    content = b'{"model": "reference", "items": [{"text": "a b", "text_pair": "a"}]}'
    head = CHUNKED.replace(b"Host", b"Content-Type: application/json\r\nConnection: close\r\nHost")
    trailers = b"X-Request-ID: from-a-trailer\r\n" * 500
    with server.connect() as connection:
        connection.sendall(head + b"%x\r\n%s\r\n0\r\n" % (len(content), content))
        connection.sendall(trailers + b"\r\n")
        (reply,) = replies_of(read_all(connection))
    assert (reply.status, reply.json["usage"]["items"]) == (200, 1)
    assert reply.headers["x-request-id"] != "from-a-trailer"


def test_pipelined_bodies_without_end_are_bounded(server: Server) -> None:
    content = b" " * 1000
    request = GET.replace(b"GET /healthz", b"POST /v1/score") + b"Content-Length: 1000\r\n\r\n"
    with PeakMemory(server.process.pid) as memory, server.connect() as connection:
        send_all(connection, itertools.repeat((request + content) * 100, 300))
        replies = replies_of(read_all(connection))
    assert {reply.status for reply in replies} == {422}
    assert memory.growth < 2 * MIB


BROKEN = {
    "garbage": (b"\0\0\0\0", 400),
    "a broken address": (b"GET http://[::1 HTTP/1.1\r\n\r\n", 400),
    "a long target": (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n", 414),
    "many headers": (GET + b"a:\r\n" * 1000, 431),
    "a broken chunk": (CHUNKED + b"zz\r\n", 400),
    "a tunnel": (b"CONNECT elsewhere:443 HTTP/1.1\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_request_is_refused_after_the_replies_to_those_before_it(
    server: Server, name: str
) -> None:
    broken, status = BROKEN[name]
    with server.connect() as connection:
        connection.sendall((GET + b"\r\n") * 3 + broken + GET + b"\r\n")
        replies = replies_of(read_all(connection))
    assert [reply.status for reply in replies] == [200, 200, 200, status]
    assert replies[-1].headers["connection"] == "close"
