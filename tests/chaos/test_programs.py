"""Random programs of callers, failures, deadlines and departures: after each the law holds."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from support.doubles import one_input

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.entry import Outcome
from assay.errors import AssayError, DeadlineExceeded, InferenceFailed, NonFiniteScore, Overloaded
from assay.settings import Settings
from assay.types import LANES, Lane
from assay_models.base import DeviceOutOfMemory

from .devices import SECONDS, Clock, Script, batching, honest, truth, until
from .servers import Connection, Server, asking, lawful, standing

CALLERS = 400
ITEMS = [(f"item {n}", 1 + n * 7 % 31) for n in range(80)] + [
    ("poison a", 3),
    ("poison b", 30),
    ("nan c", 1),
    ("-inf d", 12),
]
UNTRUE = ("poison", "nan", "inf")


@dataclass
class Weather:
    """What befalls a device: it takes a while by the clock, and fails as chance will have it."""

    chance: random.Random
    clock: Clock
    faults: bool
    transient: int = field(default=0)

    def __call__(self, texts: Sequence[str]) -> None:
        self.clock.now += self.chance.choice((0.001, 0.1, 1.0))
        if not self.faults:
            return
        if len(texts) > self.chance.randint(1, 8):
            raise DeviceOutOfMemory
        if self.chance.random() < 0.1:
            self.transient += 1
            raise self.chance.choice((RuntimeError, MemoryError, KeyboardInterrupt, OSError))


@dataclass
class Caller:
    """Asks for some items, tries again when refused, and is honestly answered or cancelled."""

    names: list[tuple[str, int]]
    patience: float
    retries: int
    lane: Lane
    refusals: int = 0

    async def ask(self, batcher: DynamicBatcher, clock: Clock) -> list[Outcome] | None:
        inputs = [one_input(*name) for name in self.names]
        for _ in range(self.retries):
            try:
                return await batcher.compute(inputs, clock() + self.patience, self.lane)
            except Overloaded:
                self.refusals += 1
                for _ in range(20):
                    await asyncio.sleep(0)
        return None

    def check(self, answer: list[Outcome], healthy: bool) -> None:
        assert len(answer) == len(self.names)
        for (name, _), outcome in zip(self.names, answer, strict=True):
            found = outcome.value
            expected: tuple[type[AssayError], ...] = (DeadlineExceeded,)
            if any(word in name for word in UNTRUE) or not healthy:
                expected += (InferenceFailed, NonFiniteScore)
            assert honest(name, found) or isinstance(found, expected), (name, found)


@pytest.mark.parametrize("faults", [False, True], ids=["healthy", "failing"])
@pytest.mark.parametrize("seed", range(12))
async def test_a_random_program_of_callers(seed: int, faults: bool) -> None:
    chance, clock = random.Random(seed), Clock()
    weather = Weather(random.Random(seed + 1), clock, faults)
    callers = [
        Caller(
            chance.choices(ITEMS, k=chance.randint(0, 6)),
            chance.choice((0.0, 0.5, 5.0, 25.0, 25.0)),
            chance.randint(1, 4),
            chance.choice(LANES),
        )
        for _ in range(CALLERS)
    ]
    async with batching(Script(fault=weather), BatchLimits(64, 8, 600), clock=clock) as batcher:
        asked: list[asyncio.Task[list[Outcome] | None]] = []
        cancelled: set[int] = set()
        for caller in callers:
            asked.append(asyncio.create_task(caller.ask(batcher, clock)))
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                chosen = chance.randrange(len(asked))
                cancelled.add(chosen)
                asked[chosen].cancel()
        async with asyncio.timeout(SECONDS):
            answers = await asyncio.gather(*asked, return_exceptions=True)
        weather.faults = False
    scored = 0
    for number, (caller, answer) in enumerate(zip(callers, answers, strict=True)):
        if isinstance(answer, BaseException):
            assert isinstance(answer, asyncio.CancelledError)
            assert number in cancelled
        elif answer is not None:
            caller.check(answer, healthy=not weather.transient and not faults)
            scored += sum(isinstance(outcome.value, tuple) for outcome in answer)
    assert scored > CALLERS / 20, "the program left too little to prove anything"


@pytest.mark.parametrize("seed", range(3))
async def test_a_random_program_of_connections(
    scripted_settings: Settings, script: Script, seed: int
) -> None:
    chance = random.Random(seed)
    settings = scripted_settings.model_copy(update={"max_queue_tokens": 2000})
    texts = [name for name, _ in ITEMS] + ["refused", "unpreparable"]

    async def call(server: Server) -> bool:
        wanted = chance.choices(texts, k=chance.randint(1, 6))
        headers = (
            f"X-Assay-Timeout-Ms: {chance.choice((1, 30_000))}",
            f"X-Assay-Priority: {chance.choice(LANES)}",
        )
        data = asking(wanted, *chance.sample(headers, chance.randint(0, 2)))
        connection = await server.connect()
        fate = chance.random()
        if fate < 0.3:
            await connection.send(data[: chance.randrange(len(data) + 1)])
            chance.choice((Connection.close, Connection.reset))(connection)
            return False
        for part in parts(data, chance) if fate < 0.5 else [data]:
            await connection.send(part)
        answer = await connection.answer()
        connection.close()
        if answer.status != 200:
            assert (answer.status, answer.json["code"]) in {
                (429, "overloaded"),
                (504, "deadline_exceeded"),
            }
        return lawful(answer, wanted)

    async with standing(settings) as server:
        calls = [asyncio.create_task(call(server)) for _ in range(150)]
        script.hold()
        calls += [asyncio.create_task(call(server)) for _ in range(150)]
        await until(lambda: server.queued > 0)
        script.release()
        answered = await asyncio.gather(*calls)
        assert sum(answered) > 20, "the program left too little to prove anything"
        assert (await server.ask(["after"])).scores == [truth("after")]


def parts(data: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(9))})
    return [data[begin:end] for begin, end in itertools.pairwise(cuts)]
