"""A comparison of one simulated replica with a real server on the same trace.

The server is real: sockets, parsing, caches, batches. Its device is timed (`timed_device`), with
the simulation's own speed. The processor time of a request is measured on that server and given to
the simulation, which has no other free number.

Example:
    python -m benchmarks.routing_validation --seeds 3
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import orjson
import uvloop

from benchmarks.connections import Connection
from benchmarks.load import percentile
from benchmarks.processes import ProcessTree, free_port
from benchmarks.routing_replicas import ReplicaConfig
from benchmarks.routing_simulation import simulate
from benchmarks.routing_trace import Arrival, TraceConfig, draw_trace
from benchmarks.timed_device import MODEL, item_of, write_card
from benchmarks.wire import http_request

READY_SECONDS = 60.0
TRACE = TraceConfig(steps=4, prompts=16)


class Played(NamedTuple):
    """The figures of one run; `cpu` is the server's processor seconds of a request."""

    rate: float
    p50: float
    p99: float
    computed: int
    cpu: float


class TimedServer:
    """A running `assay serve` with a timed device.

    Args:
        config: the device.
        folder: an empty one, for the card and the log.
    """

    def __init__(self, config: ReplicaConfig, folder: Path) -> None:
        self.port = free_port()
        write_card(
            folder / "models",
            speed=config.speed,
            overhead=config.overhead,
            tokens=config.max_batch_tokens,
            size=config.max_batch_size,
        )
        kept = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
        own = {
            "ASSAY_MODELS": MODEL,
            "ASSAY_REPOSITORY": str(folder / "models"),
            "ASSAY_BATCH_TOKENS": str(config.max_batch_tokens),
            "ASSAY_RUNS": "off",
        }
        command = [sys.executable, "-m", "benchmarks.timed_device", str(self.port)]
        self.tree = ProcessTree(command, {**kept, **own}, folder / "server.log")

    async def wait_until_ready(self) -> None:
        """Wait until it computes.

        Raises:
            RuntimeError: it ended, or is not ready in time.
        """
        ends = time.monotonic() + READY_SECONDS
        request = f"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode()
        while time.monotonic() < ends and self.tree.is_alive:
            try:
                status, _ = await (await self.connect()).call(request)
                if status == 200:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.1)
        raise RuntimeError(f"not ready: {self.tree.log_tail()}")

    async def connect(self) -> Connection:
        """Return a new connection."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", self.port)
        return connection


async def play(server: TimedServer, trace: Sequence[Arrival]) -> Played:
    """Send each request at its time, and return the figures.

    Raises:
        RuntimeError: an answer has no score.
    """
    free: list[Connection] = []
    latencies, sources = [0.0] * len(trace), Counter[str]()
    bodies = [orjson.dumps({"model": MODEL, "items": [item_of(arrival)]}) for arrival in trace]
    requests = [http_request("/v1/score", body, "127.0.0.1", server.port) for body in bodies]
    busy, start = server.tree.cpu_seconds(), time.perf_counter()

    async def request(number: int, arrival: Arrival) -> None:
        await asyncio.sleep(max(0.0, start + arrival.at - time.perf_counter()))
        due = start + arrival.at
        connection = free.pop() if free else await server.connect()
        status, body = await connection.call(requests[number])
        latencies[number] = time.perf_counter() - due
        free.append(connection)
        if status != 200:
            raise RuntimeError(f"status {status}: {body[:200]!r}")
        (result,) = orjson.loads(body)["results"]
        if result["score"] != arrival.tokens:
            raise RuntimeError(f"a wrong score: {result}")
        sources[result["source"]] += 1

    await asyncio.gather(*(request(number, arrival) for number, arrival in enumerate(trace)))
    seconds = time.perf_counter() - start
    cpu = (server.tree.cpu_seconds() - busy) / len(trace)
    for connection in free:
        connection.close()
    return _played(latencies, seconds, sources["computed"], cpu)


async def compare(config: ReplicaConfig, seeds: int) -> list[tuple[Played, Played]]:
    """Return the figures of server and simulation for each seed."""
    pairs = []
    for seed in range(seeds):
        trace = draw_trace(TRACE, seed)
        # A server of its own for each trace, so that its caches are empty.
        with tempfile.TemporaryDirectory(prefix="assay-routing-") as folder:
            server = TimedServer(config, Path(folder))
            try:
                await server.wait_until_ready()
                real = await play(server, trace)
            finally:
                server.tree.stop()
        measured = ReplicaConfig(speed=config.speed, overhead=config.overhead, cpu=real.cpu)
        result = simulate(trace, "round robin", "none", 1, measured)
        pairs.append((real, _played(result.latencies, result.seconds, result.computed, real.cpu)))
    return pairs


def table(pairs: Sequence[tuple[Played, Played]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown: means over the seeds, and the errors' range."""
    yield "| figure | server | simulation | error of each seed |"
    yield "| --- | --- | --- | --- |"
    for column, (name, form) in enumerate(
        (("items a second", ".1f"), ("p50, s", ".3f"), ("p99, s", ".3f"), ("forward passes", ".0f"))
    ):
        real = [pair[0][column] for pair in pairs]
        simulated = [pair[1][column] for pair in pairs]
        errors = [100 * (model / server - 1) for model, server in zip(simulated, real, strict=True)]
        shown = ", ".join(f"{error:+.1f} %" for error in errors)
        yield f"| {name} | {fmean(real):{form}} | {fmean(simulated):{form}} | {shown} |"
    cpu = fmean(real.cpu for real, _ in pairs)
    yield f"\nProcessor time of a request: {1e6 * cpu:.0f} µs."


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="traces (3)")
    print("\n".join(table(uvloop.run(compare(ReplicaConfig(), parser.parse_args().seeds)))))


def _played(latencies: Sequence[float], seconds: float, computed: int, cpu: float) -> Played:
    return Played(
        len(latencies) / seconds,
        percentile(latencies, 0.5),
        percentile(latencies, 0.99),
        computed,
        cpu,
    )


if __name__ == "__main__":
    main()
