"""Batches in which one thing goes wrong, at every position and at every moment."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.doubles import one_input

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.entry import Outcome
from assay.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NonFiniteScore,
    ShuttingDown,
)
from assay_models.base import DeviceOutOfMemory, Input, Raw

from .devices import (
    SECONDS,
    Script,
    batching,
    computed,
    happened,
    honest,
    started,
    truth,
    values,
)

ROWS = 8
NAMES = [f"n{number}" for number in range(ROWS)]


def with_one(name: str, position: int) -> list[str]:
    return [*NAMES[:position], name, *NAMES[position + 1 :]]


async def callers_of(batcher: DynamicBatcher) -> list[asyncio.Task[list[Outcome]]]:
    """One caller for each name, all of them admitted."""
    soon = time.monotonic() + SECONDS
    callers = [
        asyncio.create_task(batcher.compute([one_input(name), one_input("all")], soon))
        for name in NAMES
    ]
    await asyncio.sleep(0)
    return callers


class TestCancellation:
    @pytest.mark.parametrize("position", range(ROWS))
    async def test_before_dispatch(self, position: int) -> None:
        script = Script()
        script.hold()
        async with batching(script) as batcher:
            first = asyncio.create_task(computed(batcher, ["first"]))
            await happened(script.entered)
            callers = await callers_of(batcher)
            await self.only_one_is_cancelled(script, callers, position)
            assert await first == [(truth("first"),)]
        assert script.rows[NAMES[position]] == 0, "it was dropped before it cost compute"
        assert script.rows["all"] == 1

    @pytest.mark.parametrize("position", range(ROWS))
    async def test_while_computing(self, position: int) -> None:
        script = Script()
        script.hold()
        async with batching(script, BatchLimits(64, 64, 1000)) as batcher:
            callers = await callers_of(batcher)
            await happened(script.entered)
            await self.only_one_is_cancelled(script, callers, position)
        assert set(script.rows.values()) == {1}

    @pytest.mark.parametrize("position", range(ROWS))
    async def test_after_settlement(self, position: int) -> None:
        script = Script()
        async with batching(script, BatchLimits(64, 64, 1000)) as batcher:
            callers = await callers_of(batcher)
            while batcher.pending_tokens:  # noqa: ASYNC110 the moment of settlement itself is sought
                await asyncio.sleep(0)
            callers[position].cancel()
            answers = await asyncio.gather(*callers, return_exceptions=True)
            for number, (name, answer) in enumerate(zip(NAMES, answers, strict=True)):
                if isinstance(answer, BaseException):
                    assert isinstance(answer, asyncio.CancelledError)
                    assert number == position
                else:
                    assert values(answer) == [(truth(name),), (truth("all"),)]

    async def only_one_is_cancelled(
        self, script: Script, callers: Sequence[asyncio.Task[list[Outcome]]], position: int
    ) -> None:
        callers[position].cancel()
        await asyncio.wait({callers[position]})
        script.release()
        for number, (name, caller) in enumerate(zip(NAMES, callers, strict=True)):
            if number == position:
                assert caller.cancelled()
            else:
                assert values(await caller) == [(truth(name),), (truth("all"),)]

    async def test_who_asks_again_as_an_abandoned_row_is_left_out_is_answered(self) -> None:
        """What was abandoned is left out when its turn comes; somebody may ask for it just then."""
        script, on_device, turn = Script(), threading.Event(), threading.Event()
        ticks = [0]

        def clock() -> float:
            if threading.current_thread() is not threading.main_thread():
                ticks[0] += 1
                if ticks[0] == 3:
                    on_device.set()
                    assert turn.wait(SECONDS)
            return time.monotonic()

        script.hold()
        async with started(script, clock=clock) as (batcher, executor):
            leaving = asyncio.create_task(computed(batcher, ["again", "poison"]))
            await happened(script.entered)
            leaving.cancel()
            await asyncio.wait({leaving})
            script.release()
            await happened(on_device)
            turn.set()
            executor.submit(bool).result(SECONDS)
            assert await computed(batcher, ["again"]) == [(truth("again"),)]

    async def test_all_of_them(self) -> None:
        script = Script()
        script.hold()
        async with batching(script) as batcher:
            callers = await callers_of(batcher)
            await happened(script.entered)
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
            script.release()


class TestPoison:
    @pytest.mark.parametrize("position", range(ROWS))
    async def test_a_poisoned_row_fails_alone(self, position: int) -> None:
        async with batching(Script()) as batcher:
            found = await computed(batcher, with_one("poison", position))
            assert isinstance(found.pop(position), InferenceFailed)
            assert found == [(truth(name),) for name in NAMES if name != NAMES[position]]

    @pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
    @pytest.mark.parametrize("position", range(ROWS))
    async def test_a_row_that_is_not_finite_fails_alone(self, position: int, number: str) -> None:
        async with batching(Script()) as batcher:
            found = await computed(batcher, with_one(number, position))
            assert isinstance(found.pop(position), NonFiniteScore)
            assert found == [(truth(name),) for name in NAMES if name != NAMES[position]]

    @pytest.mark.parametrize("poisoned", [0b1, 0b10000001, 0b1010101, 0b11111110, 0b11111111])
    async def test_any_number_of_poisoned_rows(self, poisoned: int) -> None:
        names = [f"poison {n}" if poisoned >> n & 1 else f"n{n}" for n in range(ROWS)]
        async with batching(Script()) as batcher:
            found = await computed(batcher, names)
            scored = [honest(name, one) for name, one in zip(names, found, strict=True)]
            assert scored == ["poison" not in name for name in names]


class Unforeseen(BaseException):
    """What no `except Exception` catches."""


RAISED = [
    RuntimeError,
    AssertionError,
    OSError,
    RecursionError,
    MemoryError,
    StopIteration,
    StopAsyncIteration,
    TimeoutError,
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    concurrent.futures.InvalidStateError,
    Unforeseen,
]


class TestRaising:
    @pytest.mark.parametrize("raised", RAISED)
    async def test_whatever_a_forward_raises_its_own_items_fail_and_the_next_are_served(
        self, raised: type[BaseException]
    ) -> None:
        def fault(texts: Sequence[str]) -> None:
            if "bad" in texts:
                raise raised

        async with batching(Script(fault=fault)) as batcher:
            async with asyncio.timeout(3):
                found = await computed(batcher, with_one("bad", 3))
            assert isinstance(found.pop(3), InferenceFailed)
            assert found == [(truth(name),) for name in NAMES if name != "n3"]


def nested(count: int) -> list[list[list[float]]]:
    return [[[1.0]]] * count


MALFORMED: dict[str, Callable[[int], Any]] = {
    "nothing": lambda count: None,
    "a number": lambda count: 1.0,
    "short": lambda count: [(1.0,)] * (count - 1),
    "long": lambda count: [(1.0,)] * (count + 1),
    "empty": lambda count: [],
    "holes": lambda count: [None] * count,
    "numbers": lambda count: [1.0] * count,
    "words": lambda count: ["word"] * count,
    "nested": nested,
    "complex": lambda count: [(1j,)] * count,
    "too big": lambda count: [(10**400,)] * count,
    "a generator": lambda count: ((1.0,) for _ in range(count)),
    "an error": lambda count: RuntimeError("returned, not raised"),
}


class TestMalformedOutput:
    @pytest.mark.parametrize("shape", MALFORMED)
    async def test_what_is_no_list_of_raws_is_a_failure_and_no_number(self, shape: str) -> None:
        script, bad = Script(), [True]

        def predict(inputs: Sequence[Input]) -> list[Raw]:
            return MALFORMED[shape](len(inputs)) if bad[0] else script(inputs)

        async with batching(predict) as batcher:
            found = await computed(batcher, NAMES)
            assert all(isinstance(one, InferenceFailed) for one in found), found
            bad[0] = False

    @pytest.mark.parametrize("row", ["12345678", ("1",), {"1": 2.0}, b"1", ()])
    async def test_no_number_is_read_into_what_is_none(self, row: Any) -> None:
        script, bad = Script(), [True]

        def predict(inputs: Sequence[Input]) -> list[Raw]:
            return [row] * len(inputs) if bad[0] else script(inputs)

        async with batching(predict) as batcher:
            found = await computed(batcher, NAMES)
            assert all(isinstance(one, InferenceFailed) for one in found), found
            bad[0] = False


class TestHanging:
    async def test_callers_of_a_hung_device_are_told_when_their_deadlines_pass(self) -> None:
        script = Script()
        script.hold()
        async with batching(script) as batcher:
            hung = asyncio.create_task(
                batcher.compute([one_input("hung")], time.monotonic() + 0.05)
            )
            await happened(script.entered)
            queued = await batcher.compute([one_input("queued")], time.monotonic())
            for outcomes in (await hung, queued):
                assert isinstance(outcomes[0].value, DeadlineExceeded)
            script.release()
        assert script.rows["queued"] == 0

    async def test_closing_on_a_hung_device_settles_everybody(self) -> None:
        script = Script()
        script.hold()
        async with started(script, BatchLimits(8, 2, 1000)) as (batcher, _):
            callers = await callers_of(batcher)
            await happened(script.entered)
            await batcher.close(0.0)
            for answer in await asyncio.gather(*callers):
                assert [type(one) for one in values(answer)] == [ShuttingDown, ShuttingDown]


class TestOutOfMemory:
    @pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
    async def test_what_fits_is_computed_whatever_fits(self, rows: int) -> None:
        def fault(texts: Sequence[str]) -> None:
            if len(texts) > rows:
                raise DeviceOutOfMemory

        script = Script(fault=fault)
        async with batching(script) as batcher:
            for wave in range(3):
                names = [f"{name} {wave}" for name in NAMES]
                assert await computed(batcher, names) == [(truth(name),) for name in names]
        assert set(script.rows.values()) == {1}

    async def test_the_batches_grow_again_when_the_memory_is_back(self) -> None:
        scarce = [True]

        def fault(texts: Sequence[str]) -> None:
            if scarce[0] and len(texts) > 2:
                raise DeviceOutOfMemory

        script = Script(fault=fault)
        async with batching(script, BatchLimits(8, 8, 1000)) as batcher:
            for wave in range(100):
                scarce[0] = wave < 10
                if wave == 10:
                    script.forwards.clear()
                names = [f"{name} {wave}" for name in NAMES]
                assert await computed(batcher, names) == [(truth(name),) for name in names]
            sizes = [len(texts) for texts in script.forwards]
            assert sizes[0] == 2, "it was careful for a while"
            assert sizes[-10:] == [8] * 10, "and is itself again"

    async def test_once(self) -> None:
        failures = [DeviceOutOfMemory]

        def fault(texts: Sequence[str]) -> None:
            if failures:
                raise failures.pop()

        script = Script(fault=fault)
        async with batching(script) as batcher:
            assert await computed(batcher, NAMES) == [(truth(name),) for name in NAMES]

    async def test_always(self) -> None:
        full = [True]

        def fault(texts: Sequence[str]) -> None:
            if full[0]:
                raise DeviceOutOfMemory

        async with batching(Script(fault=fault)) as batcher:
            found = await computed(batcher, NAMES)
            assert all(isinstance(one, InferenceFailed) for one in found)
            full[0] = False
            assert await computed(batcher, NAMES) == [(truth(name),) for name in NAMES]

    @pytest.mark.parametrize("position", range(ROWS))
    async def test_one_item_that_no_memory_holds_fails_alone(self, position: int) -> None:
        def fault(texts: Sequence[str]) -> None:
            if "giant" in texts:
                raise DeviceOutOfMemory

        async with batching(Script(fault=fault)) as batcher:
            found = await computed(batcher, with_one("giant", position))
            assert isinstance(found.pop(position), InferenceFailed)
            assert found == [(truth(name),) for name in NAMES if name != NAMES[position]]
