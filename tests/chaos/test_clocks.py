"""Clocks that jump and queues that are full: no caller hangs, no request is admitted in part."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from support.doubles import text_input

from assay.batching.batcher import BatchLimits
from assay.errors import (
    DeadlineExceeded,
    Overloaded,
    RequestTooLarge,
    ShuttingDown,
)

from .devices import (
    TIMEOUT_SECONDS,
    ManualClock,
    ScriptedDevice,
    checked_batcher,
    compute,
    is_computed,
    true_score,
    wait_for_event,
)

ROWS = 8
NAMES = [f"n{number}" for number in range(ROWS)]


class TestClockJumps:
    @pytest.mark.parametrize("hours", [1, 24 * 365])
    async def test_items_that_expire_by_a_jump_forward_fail(self, hours: int) -> None:
        clock, device = ManualClock(), ScriptedDevice()
        device.hold()
        async with checked_batcher(device, clock=clock) as batcher:
            first = asyncio.create_task(compute(batcher, ["first"], clock))
            await wait_for_event(device.entered)
            queued = [asyncio.create_task(compute(batcher, [name], clock)) for name in NAMES]
            await asyncio.sleep(0)
            clock.now += 3600 * hours
            device.release()
            assert await first == [(true_score("first"),)], (
                "an item that is being computed does not expire"
            )
            for (result,) in await asyncio.gather(*queued):
                assert isinstance(result, DeadlineExceeded)
        assert set(device.rows) == {"first", "and then"}

    @pytest.mark.parametrize("hours", [1, 24 * 365])
    async def test_a_jump_back_delays_no_caller(self, hours: int) -> None:
        clock, device = ManualClock(), ScriptedDevice()
        device.hold()
        async with checked_batcher(device, clock=clock) as batcher:
            first = asyncio.create_task(compute(batcher, ["first"], clock))
            await wait_for_event(device.entered)
            queued = [asyncio.create_task(compute(batcher, [name], clock)) for name in NAMES]
            await asyncio.sleep(0)
            clock.now -= 3600 * hours
            device.release()
            assert await first == [(true_score("first"),)]
            assert await asyncio.gather(*queued) == [[(true_score(name),)] for name in NAMES]
            assert await compute(batcher, ["later"], clock) == [(true_score("later"),)]

    async def test_a_clock_that_jumps_at_every_forward_pass(self) -> None:
        clock = ManualClock()
        jumps = iter([3600.0, -7200.0, 1e-9, 0.0, -1.0, 5.0] * 20)

        def fault(texts: Sequence[str]) -> None:
            clock.now += next(jumps)

        async with checked_batcher(
            ScriptedDevice(fault=fault), BatchLimits(8, 2, 1000), clock=clock
        ) as batcher:
            for wave in range(6):
                names = [f"{name} {wave}" for name in NAMES]
                results = await asyncio.gather(*(compute(batcher, [n], clock) for n in names))
                for name, (raw,) in zip(names, results, strict=True):
                    assert is_computed(name, raw) or isinstance(raw, DeadlineExceeded)


class TestAdmission:
    async def test_requests_are_admitted_whole_and_again_after_the_queue_drains(self) -> None:
        device = ScriptedDevice()
        device.hold()
        async with checked_batcher(device, BatchLimits(64, 8, 10)) as batcher:
            first = asyncio.create_task(compute(batcher, ["first"]))
            await wait_for_event(device.entered)
            with pytest.raises(RequestTooLarge):
                await batcher.compute([text_input("never", 11)], time.monotonic() + TIMEOUT_SECONDS)
            for _ in range(3):
                with pytest.raises(Overloaded):
                    await compute(batcher, [f"m{number}" for number in range(10)])
            assert batcher.pending_tokens == 1
            fits = asyncio.create_task(compute(batcher, [f"m{number}" for number in range(9)]))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await compute(batcher, ["one more"])
            shares = asyncio.create_task(compute(batcher, ["m0", "m1"]))
            await asyncio.sleep(0)
            device.release()
            assert await first == [(true_score("first"),)]
            assert await fits == [(true_score(f"m{number}"),) for number in range(9)]
            assert await shares == [(true_score("m0"),), (true_score("m1"),)]
            tens = [f"t{number}" for number in range(10)]
            assert await compute(batcher, tens) == [(true_score(name),) for name in tens]

    async def test_a_closed_batcher_admits_no_request(self) -> None:
        async with checked_batcher(ScriptedDevice()) as batcher:
            assert is_computed("a", (await compute(batcher, ["a"]))[0])
        with pytest.raises(ShuttingDown):
            await compute(batcher, ["late"])
