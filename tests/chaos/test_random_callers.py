"""Random programs of callers, failures, deadlines and disconnects: each is answered correctly."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from support.doubles import text_input

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.entry import Outcome
from assay.errors import AssayError, DeadlineExceeded, InferenceFailed, NonFiniteScore, Overloaded
from assay.settings import Settings
from assay.types import LANES, Lane
from assay_models.base import DeviceOutOfMemory

from .devices import (
    TIMEOUT_SECONDS,
    ManualClock,
    ScriptedDevice,
    checked_batcher,
    is_computed,
    true_score,
    wait_until,
)
from .servers import Connection, Server, all_scored, checked_server, score_request

pytestmark = pytest.mark.slow

CALLERS = 400
ITEMS = [(f"item {n}", 1 + n * 7 % 31) for n in range(80)] + [
    ("poison a", 3),
    ("poison b", 30),
    ("nan c", 1),
    ("-inf d", 12),
]
WITHOUT_SCORE = ("poison", "nan", "inf")


@dataclass
class RandomFaults:
    """The time and the failures of a device: it moves the clock, and fails at random."""

    source: random.Random
    clock: ManualClock
    is_failing: bool
    raised: int = 0

    def __call__(self, texts: Sequence[str]) -> None:
        self.clock.now += self.source.choice((0.001, 0.1, 1.0))
        if not self.is_failing:
            return
        if len(texts) > self.source.randint(1, 8):
            raise DeviceOutOfMemory
        if self.source.random() < 0.1:
            self.raised += 1
            raise self.source.choice((RuntimeError, MemoryError, KeyboardInterrupt, OSError))


@dataclass
class Caller:
    """Requests some items, retries when refused, and is answered or cancelled."""

    names: list[tuple[str, int]]
    timeout: float
    retries: int
    lane: Lane

    async def request(self, batcher: DynamicBatcher, clock: ManualClock) -> list[Outcome] | None:
        inputs = [text_input(*name) for name in self.names]
        for _ in range(self.retries):
            try:
                return await batcher.compute(inputs, clock() + self.timeout, self.lane)
            except Overloaded:
                for _ in range(20):
                    await asyncio.sleep(0)
        return None

    def check(self, outcomes: list[Outcome], *, is_healthy: bool) -> None:
        """Check that each item has its score or an error that can occur."""
        assert len(outcomes) == len(self.names)
        for (name, _), outcome in zip(self.names, outcomes, strict=True):
            result = outcome.value
            expected: tuple[type[AssayError], ...] = (DeadlineExceeded,)
            if any(word in name for word in WITHOUT_SCORE) or not is_healthy:
                expected += (InferenceFailed, NonFiniteScore)
            assert is_computed(name, result) or isinstance(result, expected), (name, result)


@pytest.mark.parametrize("is_failing", [False, True], ids=["healthy", "failing"])
@pytest.mark.parametrize("seed", range(12))
async def test_callers_of_a_random_program_are_answered_correctly(
    seed: int, is_failing: bool
) -> None:
    source, clock = random.Random(seed), ManualClock()
    device_faults = RandomFaults(random.Random(seed + 1), clock, is_failing)
    callers = [
        Caller(
            source.choices(ITEMS, k=source.randint(0, 6)),
            source.choice((0.0, 0.5, 5.0, 25.0, 25.0)),
            source.randint(1, 4),
            source.choice(LANES),
        )
        for _ in range(CALLERS)
    ]
    device = ScriptedDevice(fault=device_faults)
    async with checked_batcher(device, BatchLimits(64, 8, 600), clock=clock) as batcher:
        tasks: list[asyncio.Task[list[Outcome] | None]] = []
        cancelled: set[int] = set()
        for caller in callers:
            tasks.append(asyncio.create_task(caller.request(batcher, clock)))
            for _ in range(source.randint(0, 3)):
                await asyncio.sleep(0)
            if source.random() < 0.2:
                index = source.randrange(len(tasks))
                cancelled.add(index)
                tasks[index].cancel()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        device_faults.is_failing = False
    scored = 0
    for number, (caller, result) in enumerate(zip(callers, results, strict=True)):
        if isinstance(result, BaseException):
            assert isinstance(result, asyncio.CancelledError)
            assert number in cancelled
        elif result is not None:
            caller.check(result, is_healthy=not device_faults.raised and not is_failing)
            scored += sum(isinstance(outcome.value, tuple) for outcome in result)
    assert scored > CALLERS / 20, "the program has too few scores to be a test"


@pytest.mark.parametrize("seed", range(3))
async def test_connections_of_a_random_program_are_answered_correctly(
    scripted_settings: Settings, device: ScriptedDevice, seed: int
) -> None:
    source = random.Random(seed)
    settings = scripted_settings.model_copy(update={"max_queue_tokens": 2000})
    texts = [name for name, _ in ITEMS] + ["refused", "unpreparable"]

    async def call(server: Server) -> bool:
        wanted = source.choices(texts, k=source.randint(1, 6))
        headers = (
            f"X-Assay-Timeout-Ms: {source.choice((1, 30_000))}",
            f"X-Assay-Priority: {source.choice(LANES)}",
        )
        data = score_request(wanted, *source.sample(headers, source.randint(0, 2)))
        connection = await server.connect()
        kind = source.random()
        if kind < 0.3:
            await connection.send(data[: source.randrange(len(data) + 1)])
            source.choice((Connection.close, Connection.reset))(connection)
            return False
        for part in random_parts(data, source) if kind < 0.5 else [data]:
            await connection.send(part)
        reply = await connection.read_reply()
        connection.close()
        if reply.status != 200:
            assert (reply.status, reply.json["code"]) in {
                (429, "overloaded"),
                (504, "deadline_exceeded"),
            }
        return all_scored(reply, wanted)

    async with checked_server(settings) as server:
        calls = [asyncio.create_task(call(server)) for _ in range(150)]
        device.hold()
        calls += [asyncio.create_task(call(server)) for _ in range(150)]
        await wait_until(lambda: server.queued_tokens > 0)
        device.release()
        scored = await asyncio.gather(*calls)
        assert sum(scored) > 20, "the program has too few scores to be a test"
        assert (await server.score(["after"])).scores == [true_score("after")]


def random_parts(data: bytes, source: random.Random) -> list[bytes]:
    cuts = sorted({0, len(data), *(source.randrange(len(data)) for _ in range(9))})
    return [data[begin:end] for begin, end in itertools.pairwise(cuts)]
