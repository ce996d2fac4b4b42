"""Every protocol through proxies that damage replies: never an invented or misplaced number."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from typing import Any, get_args

import pytest
from support.engine_calls import Events, ManualClock, transport
from support.engine_cards import classify, engine_card
from support.engine_servers import PROTOCOLS, EngineServer, logits_of
from support.fault_proxy import UNSEEN_BY_POSITION, Fault, FaultProxy
from support.tiers import only_nightly

from assay_models.base import ItemError
from assay_models.engines.assay import AssayEngine
from assay_models.engines.errors import EngineError
from assay_models.engines.protocol import ProtocolEngine
from assay_models.engines.sglang import SglangEngine
from assay_models.engines.tei import TeiEngine
from assay_models.engines.vllm import VllmEngine

ENGINES: dict[str, type[Any]] = {
    "vllm": VllmEngine,
    "sglang": SglangEngine,
    "tei": TeiEngine,
    "assay": AssayEngine,
}
FAULTS: tuple[Fault, ...] = get_args(Fault)


def repeat(fault: Fault, times: int) -> list[Fault]:
    return [fault] * times


def schedule(seed: int, faults: tuple[Fault, ...]) -> Iterator[Fault]:
    """Yield faults at random; every second one is none, and each comes once before any again."""
    draw = random.Random(seed)
    while True:
        for fault in draw.sample(faults, len(faults)):
            yield fault
            yield from repeat("none", draw.randrange(3))


def random_rows(draw: random.Random) -> list[list[int]]:
    """Return up to five short rows of letters, so that other calls often have equal sizes."""
    count = draw.randrange(1, 6)
    return [[draw.randrange(32, 127) for _ in range(draw.randrange(1, 5))] for _ in range(count)]


async def run_calls(engine: ProtocolEngine, clock: ManualClock, calls: int) -> Counter[str]:
    """Make calls, four at a time, and return how many rows had which outcome."""
    draw, seen, details = random.Random(7), Counter[str](), list[str]()

    async def make_call(rows: list[list[int]]) -> None:
        try:
            results = await classify(engine, rows)
        except EngineError as error:
            details.append(error.detail)
            seen[error.code] += len(rows)
            return
        assert len(results) == len(rows)
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, ItemError):
                details.append(result.detail)
                seen[f"item {result.code}"] += 1
            else:
                assert result == logits_of(row)
                seen["right"] += 1

    for _ in range(calls // 4):
        clock.now += 1.0  # so that a breaker that is open may be tried again
        await asyncio.gather(*(make_call(random_rows(draw)) for _ in range(4)))
    assert not any("quotes" in detail for detail in details)
    return seen


async def run_faults(protocol: str, calls: int) -> tuple[Counter[str], Counter[Fault], Events]:
    """Make calls through two proxies; return outcomes of rows, faults, and events."""
    faults = tuple(
        fault for fault in FAULTS if protocol != "tei" or fault not in UNSEEN_BY_POSITION
    )
    before = asyncio.all_tasks()
    events, clock = Events(), ManualClock()
    card: Any = engine_card(protocol, "http://127.0.0.1:9").engine
    async with EngineServer(PROTOCOLS[protocol]).listening() as server:
        first = FaultProxy(server.port, schedule(1, faults))
        second = FaultProxy(server.port, schedule(2, faults))
        async with first.listening(), second.listening():
            sender = transport(first.url, second.url, events=events, clock=clock)
            engine: ProtocolEngine = ENGINES[protocol](sender, card)
            seen = await run_calls(engine, clock, calls)
            assert [endpoint.tokens for endpoint in sender.endpoints.all] == [0, 0]
            assert events.in_flight == {0: 0, 1: 0}
            await engine.close()
    assert asyncio.all_tasks() == before
    return seen, Counter([*first.injected, *second.injected]), events


@pytest.mark.parametrize("protocol", ENGINES)
async def test_calls_that_are_answered_twice_get_no_number_of_another_call(protocol: str) -> None:
    async with EngineServer(PROTOCOLS[protocol]).listening() as server:
        always: list[Fault] = ["answered twice"]
        proxy = FaultProxy(server.port, cycle(always))
        async with proxy.listening():
            clock = ManualClock()
            card: Any = engine_card(protocol, proxy.url).engine
            engine = ENGINES[protocol](transport(proxy.url, clock=clock), card)
            seen = await run_calls(engine, clock, 20)
            await engine.close()
    assert seen["right"] >= sum(seen.values()) / 2


@pytest.mark.parametrize("protocol", ENGINES)
async def test_faults_of_every_kind_never_give_a_wrong_number(protocol: str) -> None:
    seen, injected, events = await run_faults(protocol, 60)
    assert seen["right"] > sum(seen.values()) / 2
    expected = {*FAULTS} - (UNSEEN_BY_POSITION if protocol == "tei" else set())
    assert injected.keys() == expected
    assert events.retries
    assert {"ok", "unavailable", "overloaded", "failed", "bad_reply", "refused"} <= {
        *events.outcomes
    }


@pytest.mark.slow
@only_nightly
@pytest.mark.parametrize("protocol", ENGINES)
async def test_faults_over_many_calls_never_give_a_wrong_number(protocol: str) -> None:
    seen, injected, _ = await run_faults(protocol, 160)
    assert seen["right"] > sum(seen.values()) / 2
    assert min(injected.values()) >= 5
