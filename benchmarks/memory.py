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
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high
from typing import Any
from urllib.parse import urlsplit

import psutil
import uvloop

from benchmarks.connections import Connection
from benchmarks.processes import ProcessTree, free_port
from benchmarks.wire import http_request

EXAMPLE = "example: python -m benchmarks.memory --minutes 10 --models nli,video-qpp"
MODELS = "code,nli,nli-small,video-qpp,retrieval-qpp"
HOST = "127.0.0.1"
SEED = 20_261_127
CALLERS = 8
GROUP_SIZES, GROUP_WEIGHTS = (1, 8, 64), (16, 4, 1)
MINUTE_SECONDS = 60.0
SAMPLE_SECONDS = 0.5
READY_SECONDS = 180.0
TIMEOUT_SECONDS = 600
MIB = 2**20

MIN_TOKENS = 20
# What a model's template adds to the words of an item, rounded up.
TEMPLATE_TOKENS = 48
LINE_TOKENS = 6
SENTENCE_WORDS = 12
MAX_RESULTS, MAX_EMBEDDED_RESULTS, EMBEDDING_WIDTH = 1000, 64, 64
# Each is one token for the tokenizers of the embedded models, and none is a keyword of Python.
WORDS = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work number night
point home water room mother area money story fact month lot right study book eye job word
business issue side kind head house service friend father power hour game line end member law
car city community name president team minute idea body information back parent face others
level office door health person art war history party result change morning reason research
girl guy moment air teacher force education
""".split()  # noqa: SIM905

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A served model, its family, and the limit of tokens of one item."""

    model: str
    family: str
    max_tokens: int


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


def draw_length(draw: random.Random, limit: int) -> int:
    """Draw a token count from `MIN_TOKENS` to `limit`, uniform in its logarithm."""
    exponent = draw.uniform(math.log(MIN_TOKENS), math.log(limit + 1))
    return min(limit, max(MIN_TOKENS, int(math.exp(exponent))))


def text_of(draw: random.Random, tokens: int) -> str:
    """Return a text of `tokens` words."""
    return " ".join(draw.choices(WORDS, k=tokens))


def program_of(draw: random.Random, tokens: int) -> str:
    """Return a Python function of about `tokens` tokens, in a fenced block."""
    names = [draw.choices(WORDS, k=3) for _ in range(max(1, tokens // LINE_TOKENS))]
    lines = "".join(f"    {target} = {left} + {right}\n" for target, left, right in names)
    return f"```python\ndef solve(time, year):\n{lines}    return time\n```\n"


def code_items(draw: random.Random, limit: int, size: int) -> list[Item]:
    """Return programs for one problem."""
    shared = draw_length(draw, limit // 4)
    prompt, rest = text_of(draw, shared), limit - shared - TEMPLATE_TOKENS
    lengths = [draw_length(draw, rest) for _ in range(size)]
    return [{"prompt": prompt, "response": program_of(draw, length)} for length in lengths]


def nli_items(draw: random.Random, limit: int, size: int) -> list[Item]:
    """Return claims about one premise; every fourth request has evidence that is read in chunks."""
    shared = draw_length(draw, limit // 2)
    rest = limit - shared - TEMPLATE_TOKENS
    claims = [text_of(draw, draw_length(draw, rest)) for _ in range(size)]
    if size < max(GROUP_SIZES) and draw.random() < 1 / 4:
        sentences = [text_of(draw, SENTENCE_WORDS) for _ in range(2 * shared // SENTENCE_WORDS)]
        evidence = "".join(f"{sentence.capitalize()}. " for sentence in sentences)
        return [{"evidence": evidence, "claims": [claim]} for claim in claims]
    premise = text_of(draw, shared)
    return [{"premise": premise, "hypothesis": claim} for claim in claims]


def video_items(draw: random.Random, limit: int, size: int) -> list[Item]:
    """Return queries."""
    lengths = [draw_length(draw, limit - TEMPLATE_TOKENS) for _ in range(size)]
    return [{"query": text_of(draw, length)} for length in lengths]


def retrieval_items(draw: random.Random, limit: int, size: int) -> list[Item]:
    """Return queries with their retrieved lists, the short ones with embeddings."""
    lengths = [draw_length(draw, min(limit, MAX_RESULTS)) for _ in range(size)]
    return [
        {"query": text_of(draw, 8), "results": _results(draw, length), "depth": length}
        for length in lengths
    ]


def _results(draw: random.Random, count: int) -> list[Item]:
    scores = sorted((draw.random() for _ in range(count)), reverse=True)
    if count > MAX_EMBEDDED_RESULTS:
        return [{"score": score} for score in scores]
    return [
        {"score": score, "embedding": [draw.random() for _ in range(EMBEDDING_WIDTH)]}
        for score in scores
    ]


def text_items(draw: random.Random, limit: int, size: int) -> list[Item]:
    """Return responses to one prompt."""
    shared = draw_length(draw, limit // 4)
    prompt, rest = text_of(draw, shared), limit - shared - TEMPLATE_TOKENS
    lengths = [draw_length(draw, rest) for _ in range(size)]
    return [{"prompt": prompt, "response": text_of(draw, length)} for length in lengths]


ITEMS_OF_FAMILY: Mapping[str, Callable[[random.Random, int, int], list[Item]]] = {
    "code": code_items,
    "nli": nli_items,
    "video_qpp": video_items,
    "retrieval_qpp": retrieval_items,
}


def request_body(draw: random.Random, targets: Sequence[Target]) -> bytes:
    """Return the body of a request to a model drawn at random."""
    target = draw.choice(targets)
    (size,) = draw.choices(GROUP_SIZES, GROUP_WEIGHTS)
    items_of = ITEMS_OF_FAMILY.get(target.family, text_items)
    items = items_of(draw, target.max_tokens, size)
    return json.dumps({"model": target.model, "items": items}).encode()


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
        except Exception:
            print(tree.log_tail(), file=sys.stderr)
            raise
        finally:
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
