"""HTTP servers under one small ASGI app: speed, and memory under headers without end.

    python -m benchmarks.http_servers --port 8300

Those that are not installed are left out. One process serves; the load comes from this one.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec

import psutil

APP = "benchmarks.http_servers:answer"
BODY = json.dumps({"model": "reference", "items": [{"text": "a b"}]}).encode()
REQUEST = (
    b"POST /v1/score HTTP/1.1\r\nHost: assay\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n%s\r\n" + BODY
)
FLOOD_BYTES = 60_000_000
UVICORN = ("uvicorn", "--no-access-log", "--log-level", "critical", "--loop", "uvloop")
SERVERS = {
    "uvicorn, httptools": (*UVICORN, "--http", "httptools"),
    "the same, with limits": ("benchmarks.http_servers", "--serve"),
    "uvicorn, h11": (*UVICORN, "--http", "h11"),
    "Granian": ("granian", "--interface", "asgi", "--no-access-log", "--log-level", "critical"),
    "Hypercorn": ("hypercorn", "--worker-class", "uvloop"),
}


async def answer(scope: dict[str, object], receive: object, send: object) -> None:
    """Read the body and answer with a text as long as one score's reply."""
    assert callable(receive)
    assert callable(send)
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"500")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * 500})


def serve_with_limits(port: int) -> None:
    """Serve the app over the protocol of `assay serve`."""
    import uvicorn
    from prometheus_client import CollectorRegistry

    from assay.api.body_budget import BodyBudget
    from assay.metrics import Metrics
    from assay.server.connections import Connections
    from assay.server.protocol import HttpProtocol

    connections = Connections(
        max_connections=8192,
        io_timeout=30.0,
        keep_alive=75.0,
        bodies=BodyBudget(1 << 29),
        metrics=Metrics(CollectorRegistry()),
    )
    uvicorn.run(
        answer,
        port=port,
        http=HttpProtocol.of(connections),
        ws="none",
        loop="uvloop",
        log_level="critical",
        access_log=False,
    )


@contextlib.contextmanager
def serving(command: tuple[str, ...], port: int) -> Iterator[psutil.Process]:
    """Run a server until the end of the block."""
    module, *options = command
    if module == "benchmarks.http_servers":
        arguments = [*options, "--port", str(port)]
    elif module == "hypercorn":
        arguments = [*options, "--bind", f"127.0.0.1:{port}", APP]
    else:
        arguments = [*options, "--port", str(port), APP]
    process = subprocess.Popen([sys.executable, "-m", module, *arguments])  # noqa: S603
    try:
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def measure(port: int, server: psutil.Process, seconds: float, *, keep_alive: bool) -> str:
    """Return the requests a second of 16 clients, and the server's CPU time for each."""
    begin = cpu_seconds(server)
    count = asyncio.run(_load(port, time.perf_counter() + seconds, keep_alive))
    return f"{count / seconds:.0f}/s, {(cpu_seconds(server) - begin) / count * 1e6:.0f} us"


def cpu_seconds(server: psutil.Process) -> float:
    """Return the CPU time of a server with its workers."""
    times = [process.cpu_times() for process in [server, *server.children(recursive=True)]]
    return float(sum(spent.user + spent.system for spent in times))


async def _load(port: int, end: float, keep_alive: bool) -> int:
    return sum(await asyncio.gather(*(_client(port, end, keep_alive) for _ in range(16))))


async def _client(port: int, end: float, keep_alive: bool) -> int:
    request = REQUEST % (len(BODY), b"" if keep_alive else b"Connection: close\r\n")
    count, streams = 0, None
    while time.perf_counter() < end:
        reader, writer = streams or await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(500)
            count += 1
        except (ConnectionError, EOFError):  # some close a connection after some number of requests
            streams = None
            continue
        streams = (reader, writer) if keep_alive else None
        if streams is None:
            writer.close()
    return count


def flood(port: int, server: psutil.Process) -> tuple[str, int]:
    """Send headers without end; return the answer's first line, and the growth of memory."""
    processes = [server, *server.children(recursive=True)]

    def memory() -> int:
        return sum(process.memory_info().rss for process in processes)

    before, part, received = memory(), b"a:\r\n" * 16_384, b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            for _ in range(FLOOD_BYTES // len(part)):
                connection.sendall(part)
        with contextlib.suppress(OSError):
            received = connection.recv(1000)
        grown = memory() - before
    return received.split(b"\r\n")[0].decode() or "none", grown


def main() -> None:
    """Print a row for each server that is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8300)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_with_limits(given.port)
        return
    print("| server | kept connections | fresh connections | flood: answer | MB |", flush=True)
    for name, command in SERVERS.items():
        if find_spec(command[0].partition(".")[0]) is None:
            continue
        with serving(command, given.port) as server:
            rates = [
                measure(given.port, server, given.seconds, keep_alive=kept)
                for kept in (True, False)
            ]
            line, grown = flood(given.port, server)
        print(f"| {name} | {rates[0]} | {rates[1]} | {line} | {grown / 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    main()
