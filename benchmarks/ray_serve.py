"""The cost of Ray Serve: `assay serve` beside one replica on Ray, by each way to reach it.

The model is `reference`, which computes next to nothing, so that the times are those of the ways.
All systems run at once and are measured in turns, round by round; a ratio compares times of one
round, and its interval is a bootstrap over the rounds. The load generator shares the processors.

Example:
    python -m benchmarks.ray_serve --rounds 8 --calls 100
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx2
import psutil

from benchmarks.connections import Connection
from benchmarks.monitoring import mean_ratio
from benchmarks.processes import free_port
from benchmarks.ray_cluster import Cluster, running_cluster
from benchmarks.wire import http_request

HOST = "127.0.0.1"
CALLERS = 32
READY_SECONDS = 120.0
MIB = 2**20
PROMPT, RESPONSE = "word " * 100, "word " * 60


@dataclass
class System:
    """One way to reach the model, and its measurements.

    Attributes:
        name: of the way.
        times: returns the milliseconds of each call, one after the other.
        flood: returns the seconds of all calls, with `CALLERS` at a time.
        pid: the process that has started all others of the system.
        medians: milliseconds, one for each round.
        rates: requests a second, one for each round.
    """

    name: str
    times: Callable[[Sequence[str]], list[float]]
    flood: Callable[[Sequence[str]], float]
    pid: int
    medians: list[float]
    rates: list[float]


class Bodies:
    """The bodies of requests, never the same twice."""

    def __init__(self) -> None:
        self._made = 0

    def take(self, count: int) -> list[str]:
        """Return that many new bodies with one item each."""
        self._made += count
        numbers = range(self._made - count, self._made)
        return [json.dumps({"model": "reference", "items": [_item(n)]}) for n in numbers]


def _item(number: int) -> dict[str, str]:
    return {"prompt": f"{PROMPT} {number}", "response": RESPONSE}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--calls", type=int, default=100, help="of each system and round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        systems = [stack.enter_context(plain_server())]
        for is_haproxy, name in ((False, "Ray, Python proxy"), (True, "Ray, HAProxy")):
            place = Path(folder) / name
            place.mkdir()
            cluster = stack.enter_context(running_cluster(haproxy=is_haproxy, folder=place))
            cluster.do("deploy", replicas=1)
            systems.append(
                _over_http(name, int(cluster.url.rpartition(":")[2]), cluster.process.pid)
            )
        systems.append(_by_handle(cluster))
        measure(systems, arguments.rounds, arguments.calls)
        print("\n".join(table(systems)))


@contextlib.contextmanager
def plain_server() -> Iterator[System]:
    """Yield `assay serve` with its model loaded."""
    port = free_port()
    environment = {name: text for name, text in os.environ.items() if "ASSAY_" not in name}
    variables = {"ASSAY_MODELS": "reference", "ASSAY_RUNS": "off", "ASSAY_PORT": str(port)}
    command = [sys.executable, "-c", "from assay.cli import app; app()", "serve"]
    process = subprocess.Popen(  # noqa: S603
        command, env={**environment, **variables}, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + READY_SECONDS
        while not _is_ready(port):
            if time.monotonic() > end:
                raise TimeoutError("assay serve was not ready in time")
            time.sleep(0.1)
        yield _over_http("`assay serve`", port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        return httpx2.get(f"http://{HOST}:{port}/readyz").is_success
    except httpx2.TransportError:
        return False


def _over_http(name: str, port: int, pid: int) -> System:
    def run(bodies: Sequence[str], callers: int) -> list[float]:
        requests = [http_request("/v1/score", body.encode(), HOST, port) for body in bodies]
        return asyncio.run(_send(requests, port, callers))

    def flood(bodies: Sequence[str]) -> float:
        began = time.perf_counter()
        run(bodies, CALLERS)
        return time.perf_counter() - began

    return System(name, lambda bodies: run(bodies, 1), flood, pid, [], [])


async def _send(requests: Sequence[bytes], port: int, callers: int) -> list[float]:
    """Return the milliseconds of each request; each caller has one connection."""
    waiting, times = iter(requests), list[float]()

    async def call() -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, HOST, port)
        for request in waiting:
            began = time.perf_counter()
            status, _ = await connection.call(request)
            times.append((time.perf_counter() - began) * 1000)
            assert status == 200, status
        connection.close()

    await asyncio.gather(*(call() for _ in range(callers)))
    return times


def _by_handle(cluster: Cluster) -> System:
    """Return the way by deployment handle, from the process that has started the cluster."""
    return System(
        "Ray, handle",
        lambda bodies: cluster.do("time_handle", bodies=bodies),
        lambda bodies: cluster.do("flood_handle", bodies=bodies, callers=CALLERS),
        cluster.process.pid,
        [],
        [],
    )


def measure(systems: Sequence[System], rounds: int, calls: int) -> None:
    """Measure every system once a round, after a round that does not count."""
    bodies = Bodies()
    for number in range(rounds + 1):
        for system in systems:
            middle = median(system.times(bodies.take(calls)))
            rate = calls * 4 / system.flood(bodies.take(calls * 4))
            if number:
                system.medians.append(middle)
                system.rates.append(rate)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)


def table(systems: Sequence[System]) -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    yield (
        "| way | p50, one caller | ratio (95 % interval) | requests/s, 32 callers "
        "| ratio (95 % interval) | processes | PSS |"
    )
    yield "|---|---|---|---|---|---|---|"
    first = systems[0]
    for system in systems:
        latency = mean_ratio(list(zip(system.medians, first.medians, strict=True)))
        rate = mean_ratio(list(zip(system.rates, first.rates, strict=True)))
        count, memory = footprint(system.pid)
        yield (
            f"| {system.name} | {median(system.medians):.2f} ms "
            f"| {latency.value:.2f} ({latency.low:.2f} to {latency.high:.2f}) "
            f"| {median(system.rates):.0f} "
            f"| {rate.value:.2f} ({rate.low:.2f} to {rate.high:.2f}) "
            f"| {count} | {memory / MIB:.0f} MiB |"
        )


def footprint(pid: int) -> tuple[int, int]:
    """Return the number of processes of a tree, and their proportional set size in bytes."""
    root = psutil.Process(pid)
    sizes = []
    for member in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            sizes.append(member.memory_full_info().pss)
    return len(sizes), sum(sizes)


if __name__ == "__main__":
    main()
