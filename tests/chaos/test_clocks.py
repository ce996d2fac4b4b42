"""Clocks that jump and queues that are full: nothing hangs, nothing is taken in by halves."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from support.doubles import one_input

from assay.batching.batcher import BatchLimits
from assay.errors import (
    DeadlineExceeded,
    Overloaded,
    RequestTooLarge,
    ShuttingDown,
)

from .devices import (
    SECONDS,
    Clock,
    Script,
    batching,
    computed,
    happened,
    honest,
    truth,
)

ROWS = 8
NAMES = [f"n{number}" for number in range(ROWS)]


def with_one(name: str, position: int) -> list[str]:
    return [*NAMES[:position], name, *NAMES[position + 1 :]]


class TestClockJumps:
    @pytest.mark.parametrize("hours", [1, 24 * 365])
    async def test_items_that_expire_by_a_leap_forward_fail_honestly(self, hours: int) -> None:
        clock, script = Clock(), Script()
        script.hold()
        async with batching(script, clock=clock) as batcher:
            first = asyncio.create_task(computed(batcher, ["first"], clock))
            await happened(script.entered)
            queued = [asyncio.create_task(computed(batcher, [name], clock)) for name in NAMES]
            await asyncio.sleep(0)
            clock.now += 3600 * hours
            script.release()
            assert await first == [(truth("first"),)], "what was being computed was still awaited"
            for answer in await asyncio.gather(*queued):
                assert isinstance(answer[0], DeadlineExceeded)
        assert set(script.rows) == {"first", "and then"}

    @pytest.mark.parametrize("hours", [1, 24 * 365])
    async def test_a_leap_back_delays_nobody(self, hours: int) -> None:
        clock, script = Clock(), Script()
        script.hold()
        async with batching(script, clock=clock) as batcher:
            first = asyncio.create_task(computed(batcher, ["first"], clock))
            await happened(script.entered)
            queued = [asyncio.create_task(computed(batcher, [name], clock)) for name in NAMES]
            await asyncio.sleep(0)
            clock.now -= 3600 * hours
            script.release()
            assert await first == [(truth("first"),)]
            assert await asyncio.gather(*queued) == [[(truth(name),)] for name in NAMES]
            assert await computed(batcher, ["later"], clock) == [(truth("later"),)]

    async def test_a_clock_that_leaps_with_every_forward(self) -> None:
        clock = Clock()
        leaps = iter([3600.0, -7200.0, 1e-9, 0.0, -1.0, 5.0] * 20)

        def fault(texts: Sequence[str]) -> None:
            clock.now += next(leaps)

        async with batching(Script(fault=fault), BatchLimits(8, 2, 1000), clock=clock) as batcher:
            for wave in range(6):
                names = [f"{name} {wave}" for name in NAMES]
                answers = await asyncio.gather(*(computed(batcher, [n], clock) for n in names))
                for name, (found,) in zip(names, answers, strict=True):
                    assert honest(name, found) or isinstance(found, DeadlineExceeded)


class TestAdmission:
    async def test_all_or_nothing_and_again_after_the_drain(self) -> None:
        script = Script()
        script.hold()
        async with batching(script, BatchLimits(64, 8, 10)) as batcher:
            first = asyncio.create_task(computed(batcher, ["first"]))
            await happened(script.entered)
            with pytest.raises(RequestTooLarge):
                await batcher.compute([one_input("never", 11)], time.monotonic() + SECONDS)
            for _ in range(3):
                with pytest.raises(Overloaded):
                    await computed(batcher, [f"m{number}" for number in range(10)])
            assert batcher.pending_tokens == 1
            fits = asyncio.create_task(computed(batcher, [f"m{number}" for number in range(9)]))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await computed(batcher, ["one more"])
            shares = asyncio.create_task(computed(batcher, ["m0", "m1"]))
            await asyncio.sleep(0)
            script.release()
            assert await first == [(truth("first"),)]
            assert await fits == [(truth(f"m{number}"),) for number in range(9)]
            assert await shares == [(truth("m0"),), (truth("m1"),)]
            tens = [f"t{number}" for number in range(10)]
            assert await computed(batcher, tens) == [(truth(name),) for name in tens]

    async def test_nothing_is_admitted_once_it_closes(self) -> None:
        async with batching(Script()) as batcher:
            assert honest("a", (await computed(batcher, ["a"]))[0])
        with pytest.raises(ShuttingDown):
            await computed(batcher, ["late"])
