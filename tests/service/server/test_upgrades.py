"""Requests that offer an upgrade, to HTTP/2 or anything else: each is served with its body."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.processes import Server, serving
from support.raw_requests import read_all, read_reply, receive, replies_of

from assay.app import create_app
from assay.settings import Settings

JAVA_CLASS = Path(__file__).parent / "Post.java"
BODY = json.dumps({"model": "reference", "items": [{"text": "a b", "text_pair": "a"}]}).encode()
HEAD = b"POST /v1/score HTTP/1.1\r\nHost: assay\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n"
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "TLS": b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
}
NEXT = b"GET /version HTTP/1.1\r\nHost: assay\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--port", "0") as server:
        yield server


@pytest.fixture
def connection(server: Server) -> Iterator[socket.socket]:
    """A connection on which each part that is sent is a segment of its own."""
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def with_length(offer: str, body: bytes = BODY) -> bytes:
    """Return a scoring request that offers an upgrade."""
    return HEAD + OFFERS[offer] + LENGTH % len(body) + body


def in_chunks(offer: str) -> bytes:
    """Return the same request with its body in chunks of 10 bytes, and a trailer."""
    parts = [BODY[begin : begin + 10] for begin in range(0, len(BODY), 10)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    head = HEAD + OFFERS[offer] + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\nX-Trailer: y\r\n\r\n"


def assert_scored(connection: socket.socket) -> None:
    """Assert that the next reply has a score, and that the one after it is to `NEXT`."""
    reply = read_reply(connection)
    assert (reply.status, reply.json["usage"]["items"]) == (200, 1)
    assert reply.json["results"][0]["score"] == 0.0
    connection.sendall(NEXT)
    assert "version" in read_reply(connection).json


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("encode", [with_length, in_chunks])
def test_a_request_with_an_upgrade_is_served_wherever_it_is_split(
    connection: socket.socket, offer: str, encode: Any
) -> None:
    request = encode(offer)
    for end in range(1, len(request) + 1):
        connection.sendall(request[:end])
        connection.sendall(request[end:])
        assert_scored(connection)


@pytest.mark.parametrize("offer", OFFERS)
def test_a_request_with_an_upgrade_between_others_is_served(
    connection: socket.socket, offer: str
) -> None:
    last = NEXT.replace(b"Host", b"Connection: close\r\nHost")
    connection.sendall(NEXT + with_length(offer) + in_chunks(offer) + with_length(offer) + last)
    replies = replies_of(read_all(connection))
    assert [reply.status for reply in replies] == [200] * 5
    assert [reply.json.get("usage", {}).get("items") for reply in replies] == [None, 1, 1, 1, None]


@pytest.mark.parametrize("offer", OFFERS)
def test_a_body_that_is_itself_a_request_is_a_body(connection: socket.socket, offer: str) -> None:
    head = HEAD + OFFERS[offer] + LENGTH % len(NEXT)
    connection.sendall(head)
    connection.sendall(NEXT)
    reply = read_reply(connection)
    assert reply.status == 422
    assert "JSON" in reply.json["detail"]
    connection.sendall(with_length(offer))
    assert_scored(connection)


@pytest.mark.parametrize("offer", OFFERS)
def test_a_body_that_waits_for_100_continue_is_served(
    connection: socket.socket, offer: str
) -> None:
    head = HEAD + OFFERS[offer] + b"Expect: 100-continue\r\n" + LENGTH % len(BODY)
    connection.sendall(head)
    assert receive(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(BODY)
    assert_scored(connection)


def post_paths() -> list[str]:
    """Return the path of each POST route, with a name for each of its parameters."""
    paths: dict[str, Any] = create_app(Settings(models=("reference",))).openapi()["paths"]
    names = {"{model}": "reference", "{name}": "reference", "{run}": "r", "{run:path}": "r"}
    found = [path for path, methods in paths.items() if "post" in methods]
    for parameter, name in names.items():
        found = [path.replace(parameter, name) for path in found]
    return found


def without_ids(text: str) -> Any:
    """Return the parsed reply without what differs between two replies to one request."""
    reply = json.loads(text)
    return {name: reply[name] for name in reply if name not in ("request_id", "id", "timing")}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_route_takes_the_body_of_curl_http2(server: Server) -> None:
    headers = ("-H", "Content-Type: application/json")
    curl = ("curl", "-sS", "--max-time", "20", *headers, "-d", '{"a field of no route": 1}')
    paths = post_paths()
    assert len(paths) > 20
    for path in paths:
        replies = [
            subprocess.run(
                [*curl, *option, f"{server.url}{path}"], capture_output=True, text=True, check=True
            ).stdout
            for option in ((), ("--http2",))
        ]
        plain, offered = map(without_ids, replies)
        assert offered == plain, path


def java_homes() -> list[Path]:
    """Return the programs of all JDKs of this machine."""
    return sorted({path.resolve() for path in Path("/usr/lib/jvm").glob("*/bin/java")})


@pytest.mark.slow
@pytest.mark.skipif(not java_homes(), reason="needs a JDK in /usr/lib/jvm")
def test_the_jdks_own_client_gets_scores(server: Server) -> None:
    for java in java_homes():
        url = f"{server.url}/v1/score"
        command = [str(java), str(JAVA_CLASS), BODY.decode(), url, url]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        lines = done.stdout.splitlines()
        assert [line.partition(" ")[0] for line in lines] == ["200", "200"]
        assert json.loads(lines[1].partition(" ")[2])["results"][0]["score"] == 0.0


def test_a_websocket_handshake_is_a_request_like_any_other(server: Server) -> None:
    headers = dict(line.split(": ") for line in OFFERS["websocket"].decode().split("\r\n") if line)
    assert httpx2.get(f"{server.url}/version", headers=headers).status_code == 200
    with serving("--port", "0", ASSAY_API_KEYS="k" * 32) as keyed:
        answer = httpx2.get(f"{keyed.url}/version", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
