"""The cost of naming a run: the same requests with and without one, alternating, on one server.

python -m benchmarks.monitoring --model encoder --pairs 20
"""

import argparse
import asyncio
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import uvloop

from benchmarks.connections import Connection
from benchmarks.processes import ProcessTree, free_port, wait_until_idle
from benchmarks.wire import http_request

SEED = 20_261_126
RUN = "bench"
ITEMS_PER_STEP = 128
CALLERS = 64
READY_SECONDS = 120.0
IDLE_SECONDS = 10.0
RESAMPLES = 4_000
GROUP_SIZE = 8


class Block(NamedTuple):
    """The cost of a block of requests.

    `seconds` is until the last answer, `processor` the server's processor seconds until it was idle
    again, its delayed writes included.
    """

    seconds: float
    processor: float
    requests: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio and its 95 % interval."""

    value: float
    low: float
    high: float


class Server:
    """A running `assay serve` of one model, its caches off, its runs in a file.

    Args:
        model: the model's name.
        cache: where the encoder's checkpoint is.
        folder: where the runs and the log go.
        variables: environment variables besides its own.
    """

    def __init__(
        self, model: str, cache: Path, folder: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.model = model
        own = {
            "ASSAY_CACHE_BYTES": "0",
            "ASSAY_PREPARED_BYTES": "0",
            "ASSAY_RUNS": str(folder / "runs.db"),
            "ASSAY_MODELS": model,
        }
        if model == "encoder":
            own |= _encoder_variables(cache)
            self.model = own["ASSAY_MODELS"]
        kept = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
        program = "from assay.cli import app; app()"
        command = [sys.executable, "-c", program, "serve", "--port", str(self.port)]
        given = variables or {}
        self.tree = ProcessTree(command, {**kept, **own, **given}, folder / "server.log")

    async def wait_until_ready(self) -> None:
        """Wait until its model computes.

        Raises:
            RuntimeError: it ended, or is not ready in time.
        """
        ends = time.monotonic() + READY_SECONDS
        while time.monotonic() < ends and self.tree.is_alive:
            try:
                connection = await _connect(self.port)
                status, _ = await connection.call(_get("/readyz", self.port))
                connection.close()
            except OSError:
                status = 0
            if status == 200:
                return
            await asyncio.sleep(0.25)
        raise RuntimeError(f"not ready: {self.tree.log_tail()}")


def request_bodies(model: str, count: int, block: int | None) -> list[bytes]:
    """Return requests of one item each, with the same texts whether or not they name the run.

    With a number of a `block` they do, and its steps continue those of the block before.
    """
    generator = random.Random(SEED)  # noqa: S311 nothing is secret here
    words = [f"w{generator.randrange(900)}" for _ in range(4_096)]
    bodies = []
    for number in range(count):
        length = min(400, max(8, round(40 * generator.lognormvariate(0.0, 0.8))))
        start = generator.randrange(len(words) - length)
        item = {
            "group": f"p{number // GROUP_SIZE}",
            "prompt": "ask " + words[number // GROUP_SIZE % len(words)],
            "response": " ".join(words[start : start + length]) + f" {number}",
        }
        body: dict[str, Any] = {"model": model, "items": [item]}
        if block is not None:
            body["run"] = {"id": RUN, "step": (block * count + number) // ITEMS_PER_STEP}
        bodies.append(json.dumps(body).encode())
    return bodies


async def run_block(server: Server, requests: Sequence[bytes], callers: int = CALLERS) -> Block:
    """Send all requests, over as many kept connections as there are callers.

    Raises:
        RuntimeError: the status of an answer was not 200.
    """
    connections = [await _connect(server.port) for _ in range(callers)]
    waiting = iter(requests)
    busy, started = server.tree.cpu_seconds(), time.perf_counter()

    async def caller(connection: Connection) -> None:
        for request in waiting:
            status, body = await connection.call(request)
            if status != 200:
                raise RuntimeError(f"status {status}: {body[:200]!r}")

    await asyncio.gather(*map(caller, connections))
    seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    await asyncio.to_thread(wait_until_idle, server.tree, IDLE_SECONDS)
    return Block(seconds, server.tree.cpu_seconds() - busy, len(requests))


def mean_ratio(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """Return the geometric mean of first over second, and its bootstrap interval over the pairs."""
    logarithms = [math.log(first / second) for first, second in pairs]
    generator = random.Random(SEED)  # noqa: S311 nothing is secret here
    means = sorted(
        fmean(generator.choices(logarithms, k=len(logarithms))) for _ in range(RESAMPLES)
    )
    low, high = means[RESAMPLES // 40], means[-RESAMPLES // 40]
    return Estimate(math.exp(fmean(logarithms)), math.exp(low), math.exp(high))


async def measure(server: Server, pairs: int, seconds: float) -> list[tuple[Block, Block]]:
    """Measure `pairs` pairs of blocks, without a run and with one, in random order in each pair."""
    await server.wait_until_ready()
    trial = _requests(server, CALLERS, None)
    await run_block(server, trial)
    took = (await run_block(server, trial)).seconds
    count = max(CALLERS, round(CALLERS * seconds / took))
    generator = random.Random(SEED)  # noqa: S311 nothing is secret here
    measured = []
    for number in range(pairs):
        blocks: dict[bool, Block] = {}
        for names_run in generator.sample((False, True), 2):
            block = number if names_run else None
            blocks[names_run] = await run_block(server, _requests(server, count, block))
        measured.append((blocks[False], blocks[True]))
        print(f"pair {number + 1} of {pairs}: {count} requests", file=sys.stderr, flush=True)
    return measured


def report(model: str, pairs: Sequence[tuple[Block, Block]]) -> Iterator[str]:
    """Yield the lines of the report."""
    wall = mean_ratio([(without.seconds, named.seconds) for without, named in pairs])
    work = mean_ratio([(named.processor, without.processor) for without, named in pairs])
    yield f"{model}: {len(pairs)} pairs of blocks, the same requests without a run and with one"
    extra = fmean(
        (named.processor - without.processor) / named.requests for without, named in pairs
    )
    base = fmean(without.processor / without.requests for without, _ in pairs)
    yield f"processor time of an item: {1e6 * base:.0f} µs without, {1e6 * extra:.0f} µs more with"
    yield f"throughput with a run, as a share of without: {_interval(wall)}"
    yield f"processor time with a run, as a multiple of without: {_interval(work)}"


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="encoder", help="`encoder` (22 M parameters), or a model Assay has")
    add("--pairs", type=int, default=20, help="pairs of blocks (20)")
    add("--seconds", type=float, default=1.5, help="approximate duration of a block (1.5)")
    add("--cache", type=Path, default=Path("work/benchmarks"), help="where the checkpoint is")
    given = parser.parse_args()
    # The server runs in a session of its own: SIGTERM to this process must not leave it running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with _running_server(given.model, given.cache) as server:
        pairs = uvloop.run(measure(server, given.pairs, given.seconds))
    print("\n".join(report(given.model, pairs)))


@contextmanager
def _running_server(model: str, cache: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="assay-monitoring-") as folder:
        server = Server(model, cache, Path(folder))
        try:
            yield server
        finally:
            server.tree.stop()


def _encoder_variables(cache: Path) -> dict[str, str]:
    # Only this checkpoint needs torch in this process.
    from benchmarks.models import make_checkpoint, write_card

    checkpoint = make_checkpoint("encoder", cache.resolve())
    write_card(checkpoint, None)
    repository = str(checkpoint.repository)
    return {"ASSAY_REPOSITORY": repository, "ASSAY_MODELS": f"{checkpoint.card}@1"}


def _requests(server: Server, count: int, block: int | None) -> list[bytes]:
    bodies = request_bodies(server.model, count, block)
    return [http_request("/v1/score", body, "127.0.0.1", server.port) for body in bodies]


async def _connect(port: int) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
    return connection


def _get(path: str, port: int) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


if __name__ == "__main__":
    main()
