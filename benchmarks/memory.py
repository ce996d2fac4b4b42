"""The resident memory of a server under mixed load, minute by minute.

Single items and groups of 8 and of 64, of 20 tokens up to each model's limit, go to the models at
random. No item repeats, so the caches fill. The last line is the ratio of the resident memory of
the last minute to that of the first, at the end of each and by their medians.

Without --url it starts a server of its own, with the environment's settings.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high
from urllib.parse import urlsplit

import psutil
import uvloop

from benchmarks.connections import Connection
from benchmarks.mixed_items import Target, request_body
from benchmarks.processes import ProcessTree, free_port
from benchmarks.wire import http_request

EXAMPLE = "example: python -m benchmarks.memory --minutes 10 --models nli,video-qpp"
MODELS = "code,nli,nli-small,video-qpp,retrieval-qpp"
HOST = "127.0.0.1"
SEED = 20_261_127
CALLERS = 8
MINUTE_SECONDS = 60.0
SAMPLE_SECONDS = 0.5
READY_SECONDS = 180.0
TIMEOUT_SECONDS = 600
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Counts:
    """Items answered, their tokens, and items that failed."""

    items: int = 0
    tokens: int = 0
    failed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.items + other.items, self.tokens + other.tokens, self.failed + other.failed
        )


@dataclass(frozen=True, slots=True)
class Minute:
    """One row of the report: resident bytes at the end of a minute, the median and the most within
    it, and the minute's counts.
    """

    number: int
    resident_bytes: int
    median_bytes: int
    peak_bytes: int
    counts: Counts


class MixedLoad:
    """Callers that send requests to one server without pause.

    Args:
        host: the server's address.
        port: its port.
        models: names of the models to ask.
    """

    def __init__(self, host: str, port: int, models: Sequence[str]) -> None:
        self.counts = Counts()
        self._host = host
        self._port = port
        self._models = models

    async def wait_ready(self) -> None:
        """Wait until the server says that all its models compute.

        Raises:
            RuntimeError: it did not within `READY_SECONDS`.
        """
        ends = time.monotonic() + READY_SECONDS
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                if (await self._get("/readyz"))[0] == 200:
                    return
            await asyncio.sleep(SAMPLE_SECONDS)
        raise RuntimeError(f"not ready after {READY_SECONDS:.0f} s")

    async def targets(self) -> list[Target]:
        """Return the models to ask, with their limits as the server states them.

        Raises:
            RuntimeError: the server does not serve one of them.
        """
        targets = []
        for model in self._models:
            status, body = await self._get(f"/v1/models/{model}")
            if status != 200:
                raise RuntimeError(f"{model}: status {status}: {body[:200]!r}")
            card = json.loads(body)
            targets.append(Target(model, card["family"], card["limits"]["max_tokens"]))
        return targets

    async def call(self, seed: int, targets: Sequence[Target]) -> None:
        """Send requests one after another until cancelled.

        Raises:
            ConnectionLost: the server hung up.
        """
        draw = random.Random(seed)  # noqa: S311
        connection = await self._connect()
        try:
            while True:
                body = request_body(draw, targets)
                request = http_request("/v1/score", body, self._host, self._port)
                counts = counts_of(*await connection.call(request))
                self.counts += counts
        finally:
            connection.close()

    async def _get(self, path: str) -> tuple[int, bytes]:
        connection = await self._connect()
        try:
            head = f"GET {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n\r\n"
            return await connection.call(head.encode())
        finally:
            connection.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection


def counts_of(status: int, body: bytes) -> Counts:
    """Return the counts of one reply; a reply without scores is one failed item."""
    if status != 200:
        return Counts(failed=1)
    usage = json.loads(body)["usage"]
    return Counts(usage["items"] - usage["failed"], usage["tokens"], usage["failed"])


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and of its children."""
    root = psutil.Process(pid)
    total: int = root.memory_info().rss
    for child in root.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += child.memory_info().rss
    return total


async def measure(load: MixedLoad, pid: int, minutes: int) -> AsyncIterator[Minute]:
    """Load the server, and yield a row after each minute.

    Raises:
        ConnectionLost: the server hung up.
    """
    await load.wait_ready()
    targets = await load.targets()
    callers = [asyncio.create_task(load.call(SEED + n, targets)) for n in range(CALLERS)]
    began = time.monotonic()
    try:
        for number in range(1, minutes + 1):
            before = load.counts
            samples = [resident_bytes(pid)]
            while time.monotonic() < began + number * MINUTE_SECONDS:
                done, _ = await asyncio.wait(
                    callers, timeout=SAMPLE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for caller in done:
                    caller.result()
                samples.append(resident_bytes(pid))
            counts = Counts(
                load.counts.items - before.items,
                load.counts.tokens - before.tokens,
                load.counts.failed - before.failed,
            )
            yield Minute(number, samples[-1], median_high(samples), max(samples), counts)
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


HEADER = "minute  resident MiB  median MiB  peak MiB  items/s  tokens/s  failed"


def row_of(minute: Minute) -> str:
    """Return a minute as a row under `HEADER`."""
    counts = minute.counts
    return (
        f"{minute.number:6}  {minute.resident_bytes / MIB:12.0f}  "
        f"{minute.median_bytes / MIB:10.0f}  {minute.peak_bytes / MIB:8.0f}  "
        f"{counts.items / MINUTE_SECONDS:7.1f}  {counts.tokens / MINUTE_SECONDS:8.0f}  "
        f"{counts.failed:6}"
    )


def ratio_line(minutes: Sequence[Minute]) -> str:
    """Return the last line of the report: the last minute's memory over the first's."""
    first, last = minutes[0], minutes[-1]
    ends = last.resident_bytes / first.resident_bytes
    medians = last.median_bytes / first.median_bytes
    return f"resident memory, last minute / first minute: {ends:.3f}, of the medians {medians:.3f}"


async def report(load: MixedLoad, pid: int, minutes: int) -> None:
    """Measure, and print the table as it grows."""
    print(HEADER, flush=True)
    rows = []
    async for minute in measure(load, pid, minutes):
        rows.append(minute)
        print(row_of(minute), flush=True)
    print(ratio_line(rows), flush=True)


@contextlib.contextmanager
def started(models: str) -> Iterator[tuple[int, int]]:
    """Run a server of these models; yield its port and its process."""
    with tempfile.TemporaryDirectory(prefix="assay-memory-") as folder:
        port = free_port()
        own = {
            "ASSAY_MODELS": models,
            "ASSAY_RUNS": str(Path(folder) / "runs.db"),
            "ASSAY_TIMEOUT": str(TIMEOUT_SECONDS),
        }
        program = "from assay.cli import app; app()"
        command = [sys.executable, "-c", program, "serve", "--port", str(port)]
        tree = ProcessTree(command, {**os.environ, **own}, Path(folder) / "server.log")
        try:
            yield port, tree.members()[0].pid
        finally:
            if sys.exc_info()[0] is not None:  # the server's log may say why the measurement ended
                print(tree.log_tail(), file=sys.stderr)
            tree.stop()


def main() -> None:
    """Measure a server, and print its memory."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=int, default=10, help="how long (10)")
    add("--models", default=MODELS, help=f"by comma ({MODELS})")
    add("--url", help="a running server, without API keys; needs --pid")
    add("--pid", type=int, help="its process on this machine")
    given = parser.parse_args()
    if (given.url is None) != (given.pid is None) or given.minutes < 1:
        parser.error("give --url and --pid together, and at least one minute")
    # The server runs in a session of its own: a signal to this process must not leave it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = given.models.split(",")
    if given.url is not None:
        address = urlsplit(given.url)
        load = MixedLoad(address.hostname or HOST, address.port or 80, names)
        uvloop.run(report(load, given.pid, given.minutes))
        return
    with started(given.models) as (port, pid):
        uvloop.run(report(MixedLoad(HOST, port, names), pid, given.minutes))


if __name__ == "__main__":
    main()
