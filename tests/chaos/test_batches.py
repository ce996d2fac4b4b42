"""Batches with one fault: a cancellation, an exception, a malformed output, no memory."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.doubles import text_input

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
    TIMEOUT_SECONDS,
    ScriptedDevice,
    checked_batcher,
    compute,
    is_computed,
    running_batcher,
    true_score,
    values,
    wait_for_event,
)

ROWS = 8
NAMES = [f"n{number}" for number in range(ROWS)]


def names_with(name: str, position: int) -> list[str]:
    """Return the names of a batch, with the given one at a position."""
    return [*NAMES[:position], name, *NAMES[position + 1 :]]


async def start_callers(batcher: DynamicBatcher) -> list[asyncio.Task[list[Outcome]]]:
    """Start a caller for each name, and wait until all are admitted."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    callers = [
        asyncio.create_task(batcher.compute([text_input(name), text_input("all")], deadline))
        for name in NAMES
    ]
    await asyncio.sleep(0)
    return callers


class TestCancellation:
    @pytest.mark.parametrize("position", range(ROWS))
    async def test_a_cancelled_caller_is_dropped_before_dispatch(self, position: int) -> None:
        device = ScriptedDevice()
        device.hold()
        async with checked_batcher(device) as batcher:
            first = asyncio.create_task(compute(batcher, ["first"]))
            await wait_for_event(device.entered)
            callers = await start_callers(batcher)
            await self.check_only_one_is_cancelled(device, callers, position)
            assert await first == [(true_score("first"),)]
        assert device.rows[NAMES[position]] == 0, "it was dropped before it cost compute"
        assert device.rows["all"] == 1

    @pytest.mark.parametrize("position", range(ROWS))
    async def test_a_caller_cancelled_while_computing_does_not_affect_others(
        self, position: int
    ) -> None:
        device = ScriptedDevice()
        device.hold()
        async with checked_batcher(device, BatchLimits(64, 64, 1000)) as batcher:
            callers = await start_callers(batcher)
            await wait_for_event(device.entered)
            await self.check_only_one_is_cancelled(device, callers, position)
        assert set(device.rows.values()) == {1}

    @pytest.mark.parametrize("position", range(ROWS))
    async def test_a_caller_cancelled_after_settlement_does_not_affect_others(
        self, position: int
    ) -> None:
        device = ScriptedDevice()
        async with checked_batcher(device, BatchLimits(64, 64, 1000)) as batcher:
            callers = await start_callers(batcher)
            while batcher.pending_tokens:  # noqa: ASYNC110 settlement has no event
                await asyncio.sleep(0)
            callers[position].cancel()
            results = await asyncio.gather(*callers, return_exceptions=True)
            for number, (name, result) in enumerate(zip(NAMES, results, strict=True)):
                if isinstance(result, BaseException):
                    assert isinstance(result, asyncio.CancelledError)
                    assert number == position
                else:
                    assert values(result) == [(true_score(name),), (true_score("all"),)]

    async def check_only_one_is_cancelled(
        self, device: ScriptedDevice, callers: Sequence[asyncio.Task[list[Outcome]]], position: int
    ) -> None:
        callers[position].cancel()
        await asyncio.wait({callers[position]})
        device.release()
        for number, (name, caller) in enumerate(zip(NAMES, callers, strict=True)):
            if number == position:
                assert caller.cancelled()
            else:
                assert values(await caller) == [(true_score(name),), (true_score("all"),)]

    async def test_a_request_for_a_row_that_is_being_dropped_is_answered(self) -> None:
        """Request an abandoned row again at the moment at which it is dropped."""
        device, on_device, proceed = ScriptedDevice(), threading.Event(), threading.Event()
        ticks = [0]

        def clock() -> float:
            if threading.current_thread() is not threading.main_thread():
                ticks[0] += 1
                if ticks[0] == 3:
                    on_device.set()
                    assert proceed.wait(TIMEOUT_SECONDS)
            return time.monotonic()

        device.hold()
        async with running_batcher(device, clock=clock) as (batcher, executor):
            leaving = asyncio.create_task(compute(batcher, ["again", "poison"]))
            await wait_for_event(device.entered)
            leaving.cancel()
            await asyncio.wait({leaving})
            device.release()
            await wait_for_event(on_device)
            proceed.set()
            executor.submit(bool).result(TIMEOUT_SECONDS)
            assert await compute(batcher, ["again"]) == [(true_score("again"),)]

    async def test_all_callers_can_be_cancelled(self) -> None:
        device = ScriptedDevice()
        device.hold()
        async with checked_batcher(device) as batcher:
            callers = await start_callers(batcher)
            await wait_for_event(device.entered)
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
            device.release()


class TestPoison:
    @pytest.mark.parametrize("position", range(ROWS))
    async def test_a_poisoned_row_fails_alone(self, position: int) -> None:
        async with checked_batcher(ScriptedDevice()) as batcher:
            results = await compute(batcher, names_with("poison", position))
            assert isinstance(results.pop(position), InferenceFailed)
            assert results == [(true_score(name),) for name in NAMES if name != NAMES[position]]

    @pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
    @pytest.mark.parametrize("position", range(ROWS))
    async def test_a_row_that_is_not_finite_fails_alone(self, position: int, number: str) -> None:
        async with checked_batcher(ScriptedDevice()) as batcher:
            results = await compute(batcher, names_with(number, position))
            assert isinstance(results.pop(position), NonFiniteScore)
            assert results == [(true_score(name),) for name in NAMES if name != NAMES[position]]

    @pytest.mark.parametrize("poisoned", [0b1, 0b10000001, 0b1010101, 0b11111110, 0b11111111])
    async def test_any_number_of_poisoned_rows_fail_alone(self, poisoned: int) -> None:
        names = [f"poison {n}" if poisoned >> n & 1 else f"n{n}" for n in range(ROWS)]
        async with checked_batcher(ScriptedDevice()) as batcher:
            results = await compute(batcher, names)
            scored = [is_computed(name, raw) for name, raw in zip(names, results, strict=True)]
            assert scored == ["poison" not in name for name in names]


class UnknownBaseException(BaseException):
    """An exception that no `except Exception` catches."""


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
    UnknownBaseException,
]


class TestRaising:
    @pytest.mark.parametrize("raised", RAISED)
    async def test_an_exception_of_a_forward_pass_fails_its_own_item_only(
        self, raised: type[BaseException]
    ) -> None:
        def fault(texts: Sequence[str]) -> None:
            if "bad" in texts:
                raise raised

        async with checked_batcher(ScriptedDevice(fault=fault)) as batcher:
            async with asyncio.timeout(3):
                results = await compute(batcher, names_with("bad", 3))
            assert isinstance(results.pop(3), InferenceFailed)
            assert results == [(true_score(name),) for name in NAMES if name != "n3"]


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
    async def test_an_output_that_is_no_list_of_raws_fails_the_batch(self, shape: str) -> None:
        device, bad = ScriptedDevice(), [True]

        def predict(inputs: Sequence[Input]) -> list[Raw]:
            return MALFORMED[shape](len(inputs)) if bad[0] else device(inputs)

        async with checked_batcher(predict) as batcher:
            results = await compute(batcher, NAMES)
            assert all(isinstance(raw, InferenceFailed) for raw in results), results
            bad[0] = False

    @pytest.mark.parametrize("row", ["12345678", ("1",), {"1": 2.0}, b"1", ()])
    async def test_a_row_that_is_no_raw_fails(self, row: Any) -> None:
        device, bad = ScriptedDevice(), [True]

        def predict(inputs: Sequence[Input]) -> list[Raw]:
            return [row] * len(inputs) if bad[0] else device(inputs)

        async with checked_batcher(predict) as batcher:
            results = await compute(batcher, NAMES)
            assert all(isinstance(raw, InferenceFailed) for raw in results), results
            bad[0] = False


class TestHanging:
    async def test_callers_of_a_hung_device_get_an_error_at_their_deadlines(self) -> None:
        device = ScriptedDevice()
        device.hold()
        async with checked_batcher(device) as batcher:
            hung = asyncio.create_task(
                batcher.compute([text_input("hung")], time.monotonic() + 0.05)
            )
            await wait_for_event(device.entered)
            queued = await batcher.compute([text_input("queued")], time.monotonic())
            for outcomes in (await hung, queued):
                assert isinstance(outcomes[0].value, DeadlineExceeded)
            device.release()
        assert device.rows["queued"] == 0

    async def test_closing_with_a_hung_device_settles_every_caller(self) -> None:
        device = ScriptedDevice()
        device.hold()
        async with running_batcher(device, BatchLimits(8, 2, 1000)) as (batcher, _):
            callers = await start_callers(batcher)
            await wait_for_event(device.entered)
            await batcher.close(0.0)
            for outcomes in await asyncio.gather(*callers):
                assert [type(error) for error in values(outcomes)] == [ShuttingDown, ShuttingDown]


class TestOutOfMemory:
    @pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
    async def test_batches_are_split_until_they_fit_and_each_row_is_computed_once(
        self, rows: int
    ) -> None:
        def fault(texts: Sequence[str]) -> None:
            if len(texts) > rows:
                raise DeviceOutOfMemory

        device = ScriptedDevice(fault=fault)
        async with checked_batcher(device) as batcher:
            for wave in range(3):
                names = [f"{name} {wave}" for name in NAMES]
                assert await compute(batcher, names) == [(true_score(name),) for name in names]
        assert set(device.rows.values()) == {1}

    async def test_batches_grow_again_when_memory_is_free_again(self) -> None:
        scarce = [True]

        def fault(texts: Sequence[str]) -> None:
            if scarce[0] and len(texts) > 2:
                raise DeviceOutOfMemory

        device = ScriptedDevice(fault=fault)
        async with checked_batcher(device, BatchLimits(8, 8, 1000)) as batcher:
            for wave in range(100):
                scarce[0] = wave < 10
                if wave == 10:
                    device.forwards.clear()
                names = [f"{name} {wave}" for name in NAMES]
                assert await compute(batcher, names) == [(true_score(name),) for name in names]
            sizes = [len(texts) for texts in device.forwards]
            assert sizes[0] == 2, "batches stay small for a while"
            assert sizes[-10:] == [8] * 10, "batches have their full size again"

    async def test_a_single_failure_is_retried(self) -> None:
        failures = [DeviceOutOfMemory]

        def fault(texts: Sequence[str]) -> None:
            if failures:
                raise failures.pop()

        device = ScriptedDevice(fault=fault)
        async with checked_batcher(device) as batcher:
            assert await compute(batcher, NAMES) == [(true_score(name),) for name in NAMES]

    async def test_a_device_without_any_memory_fails_every_row_until_it_has_some(self) -> None:
        full = [True]

        def fault(texts: Sequence[str]) -> None:
            if full[0]:
                raise DeviceOutOfMemory

        async with checked_batcher(ScriptedDevice(fault=fault)) as batcher:
            results = await compute(batcher, NAMES)
            assert all(isinstance(raw, InferenceFailed) for raw in results)
            full[0] = False
            assert await compute(batcher, NAMES) == [(true_score(name),) for name in NAMES]

    @pytest.mark.parametrize("position", range(ROWS))
    async def test_an_item_that_never_fits_fails_alone(self, position: int) -> None:
        def fault(texts: Sequence[str]) -> None:
            if "giant" in texts:
                raise DeviceOutOfMemory

        async with checked_batcher(ScriptedDevice(fault=fault)) as batcher:
            results = await compute(batcher, names_with("giant", position))
            assert isinstance(results.pop(position), InferenceFailed)
            assert results == [(true_score(name),) for name in NAMES if name != NAMES[position]]
