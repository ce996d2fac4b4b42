"""What naming a run costs: the same requests with and without one, in turn, on one server.

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import uvloop

from benchmarks.connections import Connection
from benchmarks.processes import Tree, free_port, settle
from benchmarks.wire import http_request

SEED = 20_261_126
RUN = "bench"
ITEMS_OF_A_STEP = 128
CALLERS = 64
READY_SECONDS = 120.0
SETTLE_SECONDS = 10.0
RESAMPLES = 4_000
GROUP = 8


class Block(NamedTuple):
    """Requests asked in one go: seconds until the last answer, and the server's processor seconds
    until it had come to rest again, what it wrote behind included.
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
    """A running `assay serve` of one model, its caches off, its runs in a file."""

    def __init__(self, model: str, cache: Path, folder: Path) -> None:
        self.port = free_port()
        self.model = model
        own = {
            "ASSAY_CACHE_BYTES": "0",
            "ASSAY_PREPARED_BYTES": "0",
            "ASSAY_RUNS": str(folder / "runs.db"),
            "ASSAY_MODELS": model,
        }
        if model == "encoder":
            own |= _encoder(cache)
            self.model = own["ASSAY_MODELS"]
        kept = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
        program = "from assay.cli import app; app()"
        command = [sys.executable, "-c", program, "serve", "--port", str(self.port)]
        self.tree = Tree(command, {**kept, **own}, folder / "server.log")

    async def ready(self) -> None:
        """Wait until its model computes.

        Raises:
            RuntimeError: it ended, or is not ready in time.
        """
        ends = time.monotonic() + READY_SECONDS
        while time.monotonic() < ends and self.tree.alive:
            try:
                connection = await _connect(self.port)
                status, _ = await connection.call(_get("/readyz", self.port))
                connection.close()
            except OSError:
                status = 0
            if status == 200:
                return
            await asyncio.sleep(0.25)
        raise RuntimeError(f"not ready: {self.tree.tail()}")


def bodies(model: str, count: int, turn: int | None) -> list[bytes]:
    """Requests of one item each, the same texts whether or not they name the run; in each turn it
    goes on where the last one ended.
    """
    chance = random.Random(SEED)  # noqa: S311 nothing is secret here
    words = [f"w{chance.randrange(900)}" for _ in range(4_096)]
    made = []
    for number in range(count):
        length = min(400, max(8, round(40 * chance.lognormvariate(0.0, 0.8))))
        start = chance.randrange(len(words) - length)
        item = {
            "group": f"p{number // GROUP}",
            "prompt": "ask " + words[number // GROUP % len(words)],
            "response": " ".join(words[start : start + length]) + f" {number}",
        }
        body: dict[str, Any] = {"model": model, "items": [item]}
        if turn is not None:
            body["run"] = {"id": RUN, "step": (turn * count + number) // ITEMS_OF_A_STEP}
        made.append(json.dumps(body).encode())
    return made


async def block(server: Server, requests: Sequence[bytes]) -> Block:
    """Ask them all, so many at a time over kept connections.

    Raises:
        RuntimeError: an answer was no 200.
    """
    connections = [await _connect(server.port) for _ in range(CALLERS)]
    waiting = iter(requests)
    busy, began = server.tree.cpu_seconds(), time.perf_counter()

    async def caller(connection: Connection) -> None:
        for request in waiting:
            status, body = await connection.call(request)
            if status != 200:
                raise RuntimeError(f"status {status}: {body[:200]!r}")

    await asyncio.gather(*map(caller, connections))
    seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    await asyncio.to_thread(settle, server.tree, SETTLE_SECONDS)
    return Block(seconds, server.tree.cpu_seconds() - busy, len(requests))


def ratio(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """The geometric mean of first over second, and its bootstrap interval over the pairs."""
    logs = [math.log(one / other) for one, other in pairs]
    chance = random.Random(SEED)  # noqa: S311 nothing is secret here
    means = sorted(fmean(chance.choices(logs, k=len(logs))) for _ in range(RESAMPLES))
    low, high = means[RESAMPLES // 40], means[-RESAMPLES // 40]
    return Estimate(math.exp(fmean(logs)), math.exp(low), math.exp(high))


async def measure(server: Server, pairs: int, seconds: float) -> list[tuple[Block, Block]]:
    """So many pairs of blocks, without a run and with one, in random order within each pair."""
    await server.ready()
    trial = _requests(server, CALLERS, None)
    await block(server, trial)
    took = (await block(server, trial)).seconds
    count = max(CALLERS, round(CALLERS * seconds / took))
    chance = random.Random(SEED)  # noqa: S311 nothing is secret here
    found = []
    for number in range(pairs):
        both: dict[bool, Block] = {}
        for named in chance.sample((False, True), 2):
            turn = number if named else None
            both[named] = await block(server, _requests(server, count, turn))
        found.append((both[False], both[True]))
        print(f"pair {number + 1} of {pairs}: {count} requests", file=sys.stderr, flush=True)
    return found


def report(model: str, found: Sequence[tuple[Block, Block]]) -> Iterator[str]:
    """The figures in words."""
    wall = ratio([(without.seconds, named.seconds) for without, named in found])
    work = ratio([(named.processor, without.processor) for without, named in found])
    yield f"{model}: {len(found)} pairs of blocks, the same requests without a run and with one"
    extra = fmean(
        (named.processor - without.processor) / named.requests for without, named in found
    )
    alone = fmean(without.processor / without.requests for without, _ in found)
    yield f"processor time of an item: {1e6 * alone:.0f} µs without, {1e6 * extra:.0f} µs more with"
    yield f"throughput with a run, as a share of without: {_told(wall)}"
    yield f"processor time with a run, as a multiple of without: {_told(work)}"


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="encoder", help="`encoder` (22 M parameters), or a model Assay has")
    add("--pairs", type=int, default=20, help="pairs of blocks (20)")
    add("--seconds", type=float, default=1.5, help="about so long is a block (1.5)")
    add("--cache", type=Path, default=Path("work/benchmarks"), help="where the checkpoint is")
    given = parser.parse_args()
    # The server runs in a session of its own: whoever ends this process must not leave it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with _served(given.model, given.cache) as server:
        found = uvloop.run(measure(server, given.pairs, given.seconds))
    print("\n".join(report(given.model, found)))


@contextmanager
def _served(model: str, cache: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="assay-monitoring-") as folder:
        server = Server(model, cache, Path(folder))
        try:
            yield server
        finally:
            server.tree.end()


def _encoder(cache: Path) -> dict[str, str]:
    # Only this checkpoint needs torch in this process.
    from benchmarks.models import checkpoint, write_card

    found = checkpoint("encoder", cache.resolve())
    write_card(found, None)
    return {"ASSAY_REPOSITORY": str(found.repository), "ASSAY_MODELS": f"{found.card}@1"}


def _requests(server: Server, count: int, turn: int | None) -> list[bytes]:
    made = bodies(server.model, count, turn)
    return [http_request("/v1/score", body, "127.0.0.1", server.port) for body in made]


async def _connect(port: int) -> Connection:
    _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return made


def _get(path: str, port: int) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def _told(one: Estimate) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


if __name__ == "__main__":
    main()
