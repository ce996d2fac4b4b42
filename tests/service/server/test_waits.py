"""Clients that are silent or slow against a real server: when it stops waiting, and for whom."""

import gzip
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import repeat

import httpx2
import psutil
import pytest
from support.processes import Server, serving
from support.raw_requests import read_all, read_reply, receive, replies_of, send_all

GET = b"GET /healthz HTTP/1.1\r\nHost: assay\r\n"
BODY = json.dumps({"model": "reference", "items": [{"text": "a b", "text_pair": "a"}]}).encode()
HEAD = b"POST /v1/score HTTP/1.1\r\nHost: assay\r\nContent-Type: application/json\r\n"
POST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--port", "0", ASSAY_IO_TIMEOUT="0.5", ASSAY_KEEP_ALIVE="1") as server:
        yield server


def metric(server: Server, name: str) -> float:
    """Return the value of a series, or 0 if it has none yet."""
    text = httpx2.get(f"{server.url}/metrics").text
    match = re.search(f"^{re.escape(name)} (\\S+)$", text, re.M)
    return 0.0 if match is None else float(match[1])


def rejected(server: Server, reason: str) -> float:
    """Return how many requests and connections were turned away for a reason."""
    return metric(server, f'assay_rejected_total{{reason="{reason}"}}')


@contextmanager
def dripping(server: Server, begin: bytes, part: bytes) -> Iterator[bytes]:
    """Send a part each tenth of a second until the server closes; yield what it answered."""
    with server.connect() as connection:
        connection.sendall(begin)

        def parts() -> Iterator[bytes]:
            for text in repeat(part):
                yield text
                time.sleep(0.1)

        sending = threading.Thread(target=send_all, args=(connection, parts()))
        sending.start()
        yield read_all(connection)
    sending.join()


UNFINISHED = {
    "a head": (GET, b""),
    "a head that drips": (GET, b"X-A: b\r\n"),
    "a body": (POST, b""),
    "a body that drips": (HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks that drip": (CHUNKED, b"1\r\n \r\n"),
    "chunk extensions that drip": (CHUNKED + b"1;", b"a=b;"),
    "chunks of a GET": (GET + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_request_that_does_not_arrive_in_time_gets_a_408(server: Server, name: str) -> None:
    begin, part = UNFINISHED[name]
    before = rejected(server, "request_timeout")
    with dripping(server, begin, part) as data:
        (reply,) = replies_of(data)
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert (reply.json["code"], reply.json["retryable"]) == ("request_timeout", True)
    assert rejected(server, "request_timeout") == before + 1


def test_a_silent_connection_is_closed_without_a_reply(server: Server) -> None:
    before = rejected(server, "silent")
    with server.connect() as connection:
        assert read_all(connection) == b""
    assert rejected(server, "silent") == before + 1


def test_a_connection_is_kept_between_requests_and_closed_when_idle(server: Server) -> None:
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(GET + b"\r\n")
            assert read_reply(connection).status == 200
        assert read_all(connection) == b""


def test_a_slow_body_at_the_minimum_rate_is_served() -> None:
    content = BODY + b" " * 20_000
    with serving("--port", "0", ASSAY_IO_TIMEOUT="1") as server, server.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content))
        for begin in range(0, len(content), 512):
            connection.sendall(content[begin : begin + 512])
            time.sleep(0.1)  # 5 kB a second: longer than the time-out in all
        assert read_reply(connection).status == 200


def test_a_reply_that_is_not_read_is_given_up(server: Server) -> None:
    before = rejected(server, "unread")
    with server.connect() as connection:
        sending = threading.Thread(
            target=send_all, args=(connection, repeat(b"GET /openapi.json HTTP/1.1\r\n\r\n", 1000))
        )
        sending.start()
        while rejected(server, "unread") == before:
            time.sleep(0.1)
        sending.join()
    assert metric(server, "assay_connections") == 1


def test_silent_connections_leave_a_server_with_few_descriptors_answering() -> None:
    prefix = ("prlimit", "--nofile=1024:1024")
    with serving("--port", "0", prefix=prefix) as server, ExitStack() as stack:
        assert "at most 896 connections" in server.output
        for _ in range(1050):
            stack.enter_context(server.connect())
        with httpx2.Client() as client:
            assert client.get(f"{server.url}/healthz").status_code == 200
            answer = client.post(
                f"{server.url}/v1/score", content=BODY, headers={"Content-Type": "application/json"}
            )
        assert answer.json()["results"][0]["score"] is not None
        assert psutil.Process(server.process.pid).num_fds() < 1024
        assert 1050 - 896 <= rejected(server, "evicted") <= 1060


def test_a_body_that_arrives_steadily_is_not_closed_for_silent_connections() -> None:
    content = BODY + b" " * 1_000_000
    settings = {"ASSAY_MAX_CONNECTIONS": "10", "ASSAY_IO_TIMEOUT": "5"}
    with serving("--port", "0", **settings) as server, ExitStack() as stack:
        upload = stack.enter_context(server.connect())
        upload.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content))
        for begin in range(0, len(content), 50_000):
            upload.sendall(content[begin : begin + 50_000])
            for _ in range(3):
                stack.enter_context(server.connect())
            with httpx2.Client() as client:  # until it has taken all of them in
                assert client.get(f"{server.url}/healthz").status_code == 200
        assert read_reply(upload).status == 200
        assert rejected(server, "evicted") >= 40


def test_a_connection_in_use_is_not_closed_for_a_new_one() -> None:
    events = b"GET /v1/runs/any/events HTTP/1.1\r\nHost: assay\r\nAccept: text/event-stream\r\n\r\n"
    with serving("--port", "0", ASSAY_MAX_CONNECTIONS="2") as server, ExitStack() as stack:
        body = json.loads(BODY) | {"run": {"id": "any", "step": 1}}
        assert httpx2.post(f"{server.url}/v1/score", json=body).status_code == 200
        streams = [stack.enter_context(server.connect()) for _ in range(2)]
        for stream in streams:
            stream.sendall(events)
            assert receive(stream).startswith(b"HTTP/1.1 200")
        with server.connect() as refused:
            (reply,) = replies_of(read_all(refused))
        assert (reply.status, reply.json["code"]) == (503, "overloaded")
        assert reply.headers["retry-after"] == "1"
        streams.pop().close()
        while httpx2.get(f"{server.url}/healthz").status_code == 503:
            pass


def test_the_connection_that_has_been_waited_for_longest_is_closed_first() -> None:
    with serving("--port", "0", ASSAY_MAX_CONNECTIONS="3") as server, ExitStack() as stack:
        idle, partial, body = (stack.enter_context(server.connect()) for _ in range(3))
        idle.sendall(GET + b"\r\n")
        assert read_reply(idle).status == 200
        partial.sendall(GET)
        body.sendall(POST + BODY[:1])
        metrics = b""
        while b"\nassay_body_bytes 1.0" not in metrics:  # the first one's wait begins anew
            idle.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            metrics = read_reply(idle).body
        closed = []
        for _ in range(2):
            stack.enter_context(server.connect())
        for connection in (partial, body):
            (reply,) = replies_of(read_all(connection))
            closed.append((reply.status, reply.json["code"]))
        assert closed == [(503, "overloaded")] * 2
        idle.sendall(GET + b"\r\n")
        assert read_reply(idle).status == 200


def test_unfinished_bodies_are_bounded_in_number_of_bytes_and_in_time() -> None:
    size = 33 * 1_000_000
    variables = {"ASSAY_MAX_HELD_BYTES": str(100 * MIB), "ASSAY_IO_TIMEOUT": "2"}
    with serving("--port", "0", **variables) as server, ExitStack() as stack:
        before = psutil.Process(server.process.pid).memory_info().rss
        connections = []
        for _ in range(20):
            connection = stack.enter_context(server.connect())
            connections.append(connection)
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % size)
            send_all(connection, repeat(b" " * MIB, 31))
            assert metric(server, "assay_body_bytes") <= 100 * MIB
        assert psutil.Process(server.process.pid).memory_info().rss - before < 300 * MIB
        assert httpx2.post(f"{server.url}/v1/score", json=json.loads(BODY)).status_code == 200
        statuses = [replies_of(read_all(connection))[0].status for connection in connections]
        assert set(statuses) == {408, 503}
        assert metric(server, "assay_body_bytes") == 0


def test_a_new_body_takes_the_room_of_the_oldest_unfinished_one() -> None:
    small = BODY + b" " * 1000
    limit = {"ASSAY_MAX_HELD_BYTES": "2000", "ASSAY_IO_TIMEOUT": "60"}
    with serving("--port", "0", **limit) as server, server.connect() as slow:
        slow.sendall(HEAD + b"Content-Length: 3000\r\n\r\n" + b" " * 1500)
        while metric(server, "assay_body_bytes") < 1500:
            pass
        answer = httpx2.post(f"{server.url}/v1/score", content=small, headers=JSON)
        assert answer.status_code == 200
        (reply,) = replies_of(read_all(slow))
        assert (reply.status, reply.json["code"]) == (503, "overloaded")
        large = httpx2.post(f"{server.url}/v1/score", content=small * 3, headers=JSON)
        assert (large.status_code, large.json()["code"]) == (503, "overloaded")


JSON = {"Content-Type": "application/json"}


def test_bytes_that_a_compressed_body_becomes_are_counted() -> None:
    content = gzip.compress(BODY + b" " * 10_000)
    headers = JSON | {"Content-Encoding": "gzip"}
    with serving("--port", "0", ASSAY_MAX_HELD_BYTES="5000") as server:
        answer = httpx2.post(f"{server.url}/v1/score", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert metric(server, "assay_body_bytes") == 0


def test_the_log_names_each_kind_that_was_turned_away() -> None:
    with serving("--port", "0") as server, server.connect() as connection:
        connection.sendall(b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n")
        assert replies_of(read_all(connection))[0].status == 414
        assert "uri_too_long 1" in server.read_until("turned away")


@pytest.mark.parametrize("length", [b"Content-Length: 99", b"Transfer-Encoding: chunked"])
def test_a_shutdown_answers_a_request_whose_body_is_unfinished(length: bytes) -> None:
    paths = (b"/v1/score", b"/v2/models/reference/infer", b"/rerank")
    with serving("--port", "0") as server, ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in paths]
        for path, connection in zip(paths, connections, strict=True):
            head = HEAD.replace(b"/v1/score", path) + length + b"\r\n"
            connection.sendall(head + b"Expect: 100-continue\r\nX-Request-ID: mine\r\n\r\n")
        for connection in connections:
            assert receive(connection).startswith(b"HTTP/1.1 100")
        server.process.terminate()
        for connection in connections:
            (reply,) = replies_of(read_all(connection))
            assert (reply.status, reply.json["code"]) == (503, "shutting_down")
            assert reply.json["retryable"] is True
            assert reply.json["request_id"] == reply.headers["x-request-id"] == "mine"
        assert server.process.wait(30) == -signal.SIGTERM


def test_the_soft_limit_of_descriptors_is_raised_at_start() -> None:
    with serving("--port", "0", prefix=("prlimit", "--nofile=256:2000")) as server:
        process = psutil.Process(server.process.pid)
        assert process.rlimit(psutil.RLIMIT_NOFILE) == (2000, 2000)
        assert "at most 1872 connections" in server.output
