"""DynamicBatcher when something fails: each input is settled once, and the next are computed."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from support.batchers import (
    LIMITS,
    SOON,
    Clock,
    CountingExecutor,
    asked,
    busy,
    deadline,
    raws,
    running,
    turns,
)
from support.doubles import device, length_of, new_metrics, one_input, value

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.errors import (
    InferenceFailed,
    NonFiniteScore,
    ShuttingDown,
)
from assay_models.base import DeviceOutOfMemory, Input, Raw


async def test_one_poisoned_input_among_64_fails_alone() -> None:
    def predict(inputs: Sequence[Input]) -> list[Raw]:
        if any(one.payload == "poison" for one in inputs):
            raise RuntimeError
        return length_of(inputs)

    metrics = new_metrics()
    async with running(predict, BatchLimits(64, 64, 1000), metrics) as batcher:
        names = [f"n{i}" for i in range(63)]
        names.insert(17, "poison")
        outcomes = raws(await batcher.compute([one_input(name) for name in names], deadline()))
        assert isinstance(outcomes.pop(17), InferenceFailed)
        assert outcomes == [(float(len(name)),) for name in names if name != "poison"]
        assert raws(await batcher.compute([one_input("after")], deadline())) == [(5.0,)]
    assert value(metrics, "assay_forwards_total", model="m", outcome="failed") == 7


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError, KeyError, SystemExit, KeyboardInterrupt, MemoryError),
        *(StopIteration, GeneratorExit, asyncio.CancelledError, TimeoutError),
    ],
)
async def test_a_raising_forward_fails_its_items_and_the_next_request_succeeds(
    error: type[BaseException],
) -> None:
    fails = [True]

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        if fails[0]:
            raise error
        return length_of(inputs)

    async with running(predict) as batcher:
        outcomes = raws(await batcher.compute([one_input("a"), one_input("b")], deadline()))
        assert all(isinstance(outcome, InferenceFailed) for outcome in outcomes)
        fails[0] = False
        assert raws(await batcher.compute([one_input("a")], deadline())) == [(1.0,)]


@pytest.mark.parametrize(
    "answer", [[], [(1.0,)], [(1.0,), (1.0,), (1.0,)], [None, None], ["x", "y"]]
)
async def test_a_malformed_output_is_a_failure_not_a_number(answer: list[Raw]) -> None:
    async with running(lambda inputs: answer if len(inputs) == 2 else []) as batcher:
        outcomes = raws(await batcher.compute([one_input("a"), one_input("b")], deadline()))
        assert all(isinstance(outcome, InferenceFailed) for outcome in outcomes)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
async def test_what_is_not_finite_never_leaves(number: float) -> None:
    def predict(inputs: Sequence[Input]) -> list[Raw]:
        return [(number,) if one.payload == "bad" else (1.0,) for one in inputs]

    async with running(predict) as batcher:
        bad, good = raws(await batcher.compute([one_input("bad"), one_input("good")], deadline()))
        assert isinstance(bad, NonFiniteScore)
        assert good == (1.0,)


async def test_out_of_memory_halves_the_budget_and_tries_again() -> None:
    sizes: list[int] = []
    metrics = new_metrics()

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise DeviceOutOfMemory
        return length_of(inputs)

    async with running(predict, BatchLimits(8, 8, 1000), metrics) as batcher:
        assert value(metrics, "assay_batch_token_budget", model="m") == 8
        assert raws(await asked(batcher, [f"n{i}" for i in range(8)])) == [(2.0,)] * 8
        assert sizes == [8, 4, 2, 2, 4, 2, 2]
        sizes.clear()
        await asked(batcher, [f"m{i}" for i in range(8)])
        assert sizes == [2, 2, 2, 2], "the halved budget holds for later batches"
    assert value(metrics, "assay_batch_token_budget", model="m") == 2
    assert value(metrics, "assay_forwards_total", model="m", outcome="out_of_memory") == 3


async def test_the_budget_grows_back_once_there_is_memory_again() -> None:
    sizes: list[int] = []
    metrics = new_metrics()
    scarce = [True]

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        sizes.append(len(inputs))
        if scarce[0] and len(inputs) > 2:
            raise DeviceOutOfMemory
        return length_of(inputs)

    async with running(predict, BatchLimits(8, 8, 1000), metrics) as batcher:
        await asked(batcher, [f"n{i}" for i in range(8)])
        scarce[0] = False
        for batch in range(100):
            await asked(batcher, [f"m{batch} {i}" for i in range(8)])
            if sizes[-1] == 8:
                break
        assert value(metrics, "assay_batch_token_budget", model="m") == 8
        full = [size for size in sizes[7:-1] if size in (2, 4)]
        assert full.count(2) > 16, "not before it went well for a while"
        assert full == sorted(full), "one doubling after the other"


async def test_a_small_batch_says_nothing_of_the_memory_for_a_large_one() -> None:
    metrics = new_metrics()
    fails = [True]

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        if fails[0]:
            raise DeviceOutOfMemory
        return length_of(inputs)

    async with running(predict, BatchLimits(8, 8, 1000), metrics) as batcher:
        (outcome,) = raws(await asked(batcher, ["alone"], tokens=8))
        assert isinstance(outcome, InferenceFailed)
        fails[0] = False
        for number in range(200):
            await asked(batcher, [f"small {number}"])
    assert value(metrics, "assay_batch_token_budget", model="m") == 4


async def test_closing_finishes_what_was_admitted_and_admits_nothing_more() -> None:
    async with busy() as (batcher, gate, first):
        queued = asyncio.create_task(batcher.compute([one_input("queued")], deadline()))
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close(SOON))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await batcher.compute([one_input("late")], deadline())
        gate.open.set()
        await closing
        assert raws(await first) == [(5.0,)]
        assert raws(await queued) == [(6.0,)]


async def test_closing_settles_what_it_cannot_finish_in_time() -> None:
    async with busy() as (batcher, _, first):
        queued = asyncio.create_task(batcher.compute([one_input("queued")], deadline()))
        await asyncio.sleep(0)
        await batcher.close(0.0)
        for caller in (first, queued):
            assert isinstance((await caller)[0].value, ShuttingDown)


async def test_a_device_that_takes_no_work_fails_items_and_is_told_once() -> None:
    told: list[str] = []
    executor = device()
    batcher = DynamicBatcher(
        name="m",
        predict=length_of,
        thread=executor,
        limits=LIMITS,
        metrics=new_metrics(),
        clock=time.monotonic,
        on_death=told.append,
    )
    batcher.start()
    executor.shutdown()
    (outcome,) = await batcher.compute([one_input("a")], deadline())
    assert isinstance(outcome.value, InferenceFailed)
    assert not batcher.alive
    with pytest.raises(ShuttingDown):
        await batcher.compute([one_input("a")], deadline())
    await batcher.close(SOON)
    (message,) = told
    assert message.startswith("m can compute no more: RuntimeError in submit")


async def test_a_device_that_gives_back_what_it_took_is_dead() -> None:
    told: list[str] = []
    executor = CountingExecutor()
    async with busy(executor=executor, on_death=told.append) as (batcher, gate, first):
        staged = asked(batcher, [f"n{i}" for i in range(8)])
        await turns()
        executor.shutdown(wait=False, cancel_futures=True)
        gate.open.set()
        for outcome in await staged:
            assert isinstance(outcome.value, InferenceFailed)
        assert raws(await first) == [(5.0,)]
        assert len(told) == 1
        assert batcher.pending_tokens == 0


async def test_a_broken_loop_fails_all_that_was_admitted_and_is_told_without_any_text() -> None:
    def broken(inputs: Sequence[Input]) -> int:
        raise KeyError(inputs[0].payload)

    told: list[str] = []
    async with running(length_of, cost=broken, on_death=told.append) as batcher:
        for outcome in await asked(batcher, ["secret", "b"]):
            assert isinstance(outcome.value, InferenceFailed)
        assert not batcher.alive
    (message,) = told
    assert "KeyError in broken" in message
    assert "secret" not in message


async def test_a_cancelled_loop_is_dead_and_a_closed_one_is_not() -> None:
    told: list[str] = []
    async with busy(on_death=told.append) as (_, gate, first):
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "batcher m")
        task.cancel()
        assert isinstance((await first)[0].value, InferenceFailed)
        assert told == ["m can compute no more: its batcher was cancelled"]
        gate.open.set()
    told.clear()
    async with busy(on_death=told.append) as (batcher, gate, _):
        await batcher.close(0.0)
        gate.open.set()
    assert told == []


async def test_a_forward_pass_that_hangs_is_seen() -> None:
    clock = Clock()
    async with busy(clock=clock, hang_seconds=60.0) as (batcher, gate, first):
        assert not batcher.hung
        clock.moved += 100.0
        assert batcher.stuck_seconds >= 100.0
        assert batcher.hung
        clock.moved -= 1000.0
        assert batcher.stuck_seconds == 0.0, "the clock was set back"
        gate.open.set()
        await first
        assert batcher.stuck_seconds == 0.0
