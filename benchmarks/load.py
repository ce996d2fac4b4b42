"""The load generator: a process of its own that asks, counts, and then checks every answer.

It runs as `python -m benchmarks.load PLAN`: says `ready` when all requests are built, waits for a
line, says `done` when the last answer came, and then writes its findings as one line of JSON.
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
from benchmarks.texts import Text, from_plain
from benchmarks.wire import WIRES, BadReply

CONNECT_TRIES = 200
CONNECT_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Plan:
    """One cell's load.

    `callers` ask at once, each its next request when its last is answered, over connections of
    their own or a new one per call (`fresh`), until `seconds` have passed or `requests` are sent
    (None: no such end). `texts` are asked in order and over again, `per_request` at a time.
    `truth` are their scores, empty where answers are not compared; an answer further off than
    `far_off` is wrong. After `patience` seconds the cell is broken off.
    """

    host: str
    port: int
    wire: str
    model: str
    fresh: bool
    callers: int
    per_request: int
    seconds: float
    requests: int | None
    patience: float
    far_off: float
    texts: list[Text]
    truth: list[float]

    def dump(self) -> bytes:
        """As JSON."""
        return orjson.dumps(asdict(self))

    @classmethod
    def load(cls, data: bytes) -> "Plan":
        """A plan that `dump` wrote."""
        fields = orjson.loads(data)
        return cls(**{**fields, "texts": from_plain(fields["texts"])})


@dataclass(slots=True)
class Findings:
    """What the timed part saw. `answers` holds (request, status, body)."""

    answers: list[tuple[int, int, bytes]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    connect_retries: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Load:
    """The timed part of one cell."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.batches = batches_of(plan.texts, plan.per_request)
        wire = WIRES[plan.wire]
        self._requests = [
            wire.request(plan.model, batch, plan.host, plan.port) for batch in self.batches
        ]
        self.findings = Findings()
        self._numbers: Iterator[int] = count()

    async def run(self) -> None:
        """Ask until the plan is fulfilled and every answer has come, or patience ends."""
        began, busy = time.perf_counter(), time.process_time()
        self._ends = began + self.plan.seconds
        callers = [asyncio.create_task(self._caller()) for _ in range(self.plan.callers)]
        _, left = await asyncio.wait(callers, timeout=self.plan.patience)
        self.findings.seconds = time.perf_counter() - began
        self.findings.cpu_seconds = time.process_time() - busy
        for caller in left:
            self.findings.errors["no answer in time"] += 1
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

    def _next(self) -> int | None:
        number = next(self._numbers)
        if self.plan.requests is None:
            # Everyone asks at least once, so that all callers are really there at once.
            over = time.perf_counter() >= self._ends and number >= self.plan.callers
        else:
            over = number >= self.plan.requests
        if over:
            return None
        self.findings.sent += 1
        return number % len(self._requests)

    async def _caller(self) -> None:
        connection: Connection | None = None
        while (number := self._next()) is not None:
            began = time.perf_counter()
            try:
                if connection is None or not connection.open:
                    connection = await self._connect()
                status, body = await connection.call(self._requests[number])
            except (ConnectionLost, MalformedReply, OSError) as error:
                self.findings.errors[f"{type(error).__name__}: {error}"] += 1
                connection = None
                continue
            self.findings.latencies.append(time.perf_counter() - began)
            self.findings.answers.append((number, status, body))
            if self.plan.fresh:
                connection.close()
        if connection is not None:
            connection.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        for left in reversed(range(CONNECT_TRIES)):
            try:
                _, made = await loop.create_connection(Connection, self.plan.host, self.plan.port)
            except OSError:
                if not left:
                    raise
                self.findings.connect_retries += 1
                await asyncio.sleep(CONNECT_PAUSE)
            else:
                return made
        raise AssertionError


def batches_of(texts: Sequence[Text], size: int) -> list[list[Text]]:
    """Texts in order, `size` at a time; what is left over is dropped."""
    whole = len(texts) // size
    return [list(texts[at * size : (at + 1) * size]) for at in range(whole)]


def report(load: Load) -> dict[str, Any]:
    """The figures of a cell, once every answer has been compared with the truth."""
    found, plan = load.findings, load.plan
    right, tokens, difference = 0, 0, 0.0
    for number, status, body in found.answers:
        batch = load.batches[number]
        if status != 200:
            found.errors[f"status {status}"] += len(batch)
            continue
        try:
            far = _differences(load, number, body)
        except BadReply as error:
            found.errors[str(error)] += len(batch)
            continue
        difference = max(difference, *far)
        wrong = sum(1 for one in far if not one <= plan.far_off)
        found.errors["wrong score"] += wrong
        right += len(batch) - wrong
        tokens += sum(text.tokens for text in batch)
    return {
        "requests": found.sent,
        "items": right,
        "seconds": found.seconds,
        "items_per_second": right / found.seconds,
        "tokens_per_second": tokens / found.seconds,
        "p50_ms": 1e3 * percentile(found.latencies, 0.50),
        "p99_ms": 1e3 * percentile(found.latencies, 0.99),
        "largest_difference": difference if plan.truth else None,
        "errors": {kind: number for kind, number in found.errors.items() if number},
        "connect_retries": found.connect_retries,
        "generator_cpu": found.cpu_seconds / found.seconds,
    }


def _differences(load: Load, number: int, body: bytes) -> list[float]:
    plan, size = load.plan, load.plan.per_request
    if not plan.truth:
        return [0.0] * size
    scores = WIRES[plan.wire].read(body, size)
    expected = plan.truth[number * size : (number + 1) * size]
    return [abs(score - true) for score, true in zip(scores, expected, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def main(path: str) -> None:
    """Run one plan, in step with whoever started this process."""
    load = Load(Plan.load(Path(path).read_bytes()))
    gc.collect()
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    sys.stdin.readline()
    uvloop.run(load.run())
    print("done", flush=True)
    print(orjson.dumps(report(load)).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
