"""The load generator: a separate process that sends requests, counts, and then checks every answer.

It runs as `python -m benchmarks.load CONFIG`: prints `ready` when all requests are built, waits for
a line, prints `done` when the last answer arrived, and then its figures as one line of JSON.
"""

import asyncio
import gc
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.connections import Connection, ConnectionLost, MalformedReply
from benchmarks.texts import Text, from_json_rows
from benchmarks.wire import WIRES, BadReply

CONNECT_TRIES = 200
CONNECT_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """The load of one scenario.

    `concurrency` callers send requests, each its next request when its last is answered, over
    kept connections or over a new one for each request (`new_connection`), until `seconds` have
    passed or `requests` are sent (None: no such limit). `texts` are sent in order, repeatedly,
    `per_request` at a time. `expected` are their scores, empty where answers are not compared; an
    answer that differs by more than `tolerance` is wrong. After `timeout` seconds the load is
    aborted.
    """

    host: str
    port: int
    wire: str
    model: str
    new_connection: bool
    concurrency: int
    per_request: int
    seconds: float
    requests: int | None
    timeout: float
    tolerance: float
    texts: list[Text]
    expected: list[float]

    def dump(self) -> bytes:
        """Return the JSON that `load` reads."""
        return orjson.dumps(asdict(self))

    @classmethod
    def load(cls, data: bytes) -> "LoadConfig":
        """Read the JSON of `dump`."""
        fields = orjson.loads(data)
        return cls(**{**fields, "texts": from_json_rows(fields["texts"])})


@dataclass(slots=True, kw_only=True)
class Recording:
    """The answers and durations of the timed part. `answers` holds (request, status, body)."""

    answers: list[tuple[int, int, bytes]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    connect_retries: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class LoadGenerator:
    """The timed part of one scenario."""

    def __init__(self, config: LoadConfig) -> None:
        self.config = config
        self.batches = batches_of(config.texts, config.per_request)
        wire = WIRES[config.wire]
        self._requests = [
            wire.request(config.model, batch, config.host, config.port) for batch in self.batches
        ]
        self.recording = Recording()
        self._numbers: Iterator[int] = count()

    async def run(self) -> None:
        """Send requests until the limit is reached and every answer has arrived, or the timeout."""
        started, busy = time.perf_counter(), time.process_time()
        self._ends = started + self.config.seconds
        callers = [asyncio.create_task(self._caller()) for _ in range(self.config.concurrency)]
        _, pending = await asyncio.wait(callers, timeout=self.config.timeout)
        self.recording.seconds = time.perf_counter() - started
        self.recording.cpu_seconds = time.process_time() - busy
        for caller in pending:
            self.recording.errors["no answer in time"] += 1
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

    def _next(self) -> int | None:
        number = next(self._numbers)
        if self.config.requests is None:
            # Every caller sends at least one request, so that all of them are concurrent.
            is_over = time.perf_counter() >= self._ends and number >= self.config.concurrency
        else:
            is_over = number >= self.config.requests
        if is_over:
            return None
        self.recording.sent += 1
        return number % len(self._requests)

    async def _caller(self) -> None:
        connection: Connection | None = None
        while (number := self._next()) is not None:
            started = time.perf_counter()
            try:
                if connection is None or not connection.is_open:
                    connection = await self._connect()
                status, body = await connection.call(self._requests[number])
            except (ConnectionLost, MalformedReply, OSError) as error:
                self.recording.errors[f"{type(error).__name__}: {error}"] += 1
                connection = None
                continue
            self.recording.latencies.append(time.perf_counter() - started)
            self.recording.answers.append((number, status, body))
            if self.config.new_connection:
                connection.close()
        if connection is not None:
            connection.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = self.config.host, self.config.port
        for left in reversed(range(CONNECT_TRIES)):
            try:
                _, connection = await loop.create_connection(Connection, host, port)
            except OSError:
                if not left:
                    raise
                self.recording.connect_retries += 1
                await asyncio.sleep(CONNECT_PAUSE_SECONDS)
            else:
                return connection
        raise AssertionError

    def report(self) -> dict[str, Any]:
        """Compare every answer with the expected scores and return the figures of the scenario."""
        recording = self.recording
        right, tokens, difference = self._check_answers()
        return {
            "requests": recording.sent,
            "items": right,
            "seconds": recording.seconds,
            "items_per_second": right / recording.seconds,
            "tokens_per_second": tokens / recording.seconds,
            "p50_ms": 1e3 * percentile(recording.latencies, 0.50),
            "p99_ms": 1e3 * percentile(recording.latencies, 0.99),
            "largest_difference": difference if self.config.expected else None,
            "errors": {kind: number for kind, number in recording.errors.items() if number},
            "connect_retries": recording.connect_retries,
            "generator_cpu": recording.cpu_seconds / recording.seconds,
        }

    def _check_answers(self) -> tuple[int, int, float]:
        """Count errors; return right items, tokens of answered items and the largest difference."""
        right, tokens, largest = 0, 0, 0.0
        errors = self.recording.errors
        for number, status, body in self.recording.answers:
            batch = self.batches[number]
            if status != 200:
                errors[f"status {status}"] += len(batch)
                continue
            try:
                differences = self._differences(number, body)
            except BadReply as error:
                errors[str(error)] += len(batch)
                continue
            largest = max(largest, *differences)
            wrong = sum(not difference <= self.config.tolerance for difference in differences)
            errors["wrong score"] += wrong
            right += len(batch) - wrong
            tokens += sum(text.tokens for text in batch)
        return right, tokens, largest

    def _differences(self, number: int, body: bytes) -> list[float]:
        size = self.config.per_request
        if not self.config.expected:
            return [0.0] * size
        scores = WIRES[self.config.wire].read(body, size)
        expected = self.config.expected[number * size : (number + 1) * size]
        return [abs(score - right) for score, right in zip(scores, expected, strict=True)]


def batches_of(texts: Sequence[Text], size: int) -> list[list[Text]]:
    """Divide texts in order into batches of `size`; an incomplete last batch is dropped."""
    whole = len(texts) // size
    return [list(texts[at * size : (at + 1) * size]) for at in range(whole)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def main(path: str) -> None:
    """Run one configuration, synchronised with the process that started this one."""
    generator = LoadGenerator(LoadConfig.load(Path(path).read_bytes()))
    gc.collect()
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    sys.stdin.readline()
    uvloop.run(generator.run())
    print("done", flush=True)
    print(orjson.dumps(generator.report()).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
