"""DynamicBatcher after a failure: each input is settled once, and later inputs are computed."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from support.batchers import (
    LIMITS,
    TIMEOUT_SECONDS,
    AdjustableClock,
    CountingExecutor,
    busy_batcher,
    deadline,
    raws,
    run_event_loop,
    running_batcher,
    start_compute,
)
from support.doubles import device_thread, length_of, new_metrics, text_input, value

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.errors import (
    InferenceFailed,
    NonFiniteScore,
    ShuttingDown,
)
from assay_models.base import DeviceOutOfMemory, Input, Raw


async def test_one_failing_input_among_64_fails_alone() -> None:
    def predict(inputs: Sequence[Input]) -> list[Raw]:
        if any(row.payload == "poison" for row in inputs):
            raise RuntimeError
        return length_of(inputs)

    metrics = new_metrics()
    async with running_batcher(predict, BatchLimits(64, 64, 1000), metrics=metrics) as batcher:
        names = [f"n{i}" for i in range(63)]
        names.insert(17, "poison")
        outcomes = raws(await batcher.compute([text_input(name) for name in names], deadline()))
        assert isinstance(outcomes.pop(17), InferenceFailed)
        assert outcomes == [(float(len(name)),) for name in names if name != "poison"]
        assert raws(await batcher.compute([text_input("after")], deadline())) == [(5.0,)]
    assert value(metrics, "assay_forwards_total", model="m", outcome="failed") == 7


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError, KeyError, SystemExit, KeyboardInterrupt, MemoryError),
        *(StopIteration, GeneratorExit, asyncio.CancelledError, TimeoutError),
    ],
)
async def test_a_raising_forward_pass_fails_its_items_and_the_next_request_succeeds(
    error: type[BaseException],
) -> None:
    is_failing = [True]

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        if is_failing[0]:
            raise error
        return length_of(inputs)

    async with running_batcher(predict) as batcher:
        outcomes = raws(await batcher.compute([text_input("a"), text_input("b")], deadline()))
        assert all(isinstance(outcome, InferenceFailed) for outcome in outcomes)
        is_failing[0] = False
        assert raws(await batcher.compute([text_input("a")], deadline())) == [(1.0,)]


@pytest.mark.parametrize(
    "answer", [[], [(1.0,)], [(1.0,), (1.0,), (1.0,)], [None, None], ["x", "y"]]
)
async def test_a_malformed_output_fails_the_inputs(answer: list[Raw]) -> None:
    async with running_batcher(lambda inputs: answer if len(inputs) == 2 else []) as batcher:
        outcomes = raws(await batcher.compute([text_input("a"), text_input("b")], deadline()))
        assert all(isinstance(outcome, InferenceFailed) for outcome in outcomes)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
async def test_a_raw_that_is_not_finite_fails_its_input(number: float) -> None:
    def predict(inputs: Sequence[Input]) -> list[Raw]:
        return [(number,) if row.payload == "bad" else (1.0,) for row in inputs]

    async with running_batcher(predict) as batcher:
        bad, good = raws(await batcher.compute([text_input("bad"), text_input("good")], deadline()))
        assert isinstance(bad, NonFiniteScore)
        assert good == (1.0,)


async def test_out_of_memory_halves_the_budget_and_retries() -> None:
    sizes: list[int] = []
    metrics = new_metrics()

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise DeviceOutOfMemory
        return length_of(inputs)

    async with running_batcher(predict, BatchLimits(8, 8, 1000), metrics=metrics) as batcher:
        assert value(metrics, "assay_batch_token_budget", model="m") == 8
        assert raws(await start_compute(batcher, [f"n{i}" for i in range(8)])) == [(2.0,)] * 8
        assert sizes == [8, 4, 2, 2, 4, 2, 2]
        sizes.clear()
        await start_compute(batcher, [f"m{i}" for i in range(8)])
        assert sizes == [2, 2, 2, 2], "the halved budget holds for later batches"
    assert value(metrics, "assay_batch_token_budget", model="m") == 2
    assert value(metrics, "assay_forwards_total", model="m", outcome="out_of_memory") == 3


async def test_the_budget_grows_back_after_successful_full_batches() -> None:
    sizes: list[int] = []
    metrics = new_metrics()
    is_scarce = [True]

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        sizes.append(len(inputs))
        if is_scarce[0] and len(inputs) > 2:
            raise DeviceOutOfMemory
        return length_of(inputs)

    async with running_batcher(predict, BatchLimits(8, 8, 1000), metrics=metrics) as batcher:
        await start_compute(batcher, [f"n{i}" for i in range(8)])
        is_scarce[0] = False
        for batch in range(100):
            await start_compute(batcher, [f"m{batch} {i}" for i in range(8)])
            if sizes[-1] == 8:
                break
        assert value(metrics, "assay_batch_token_budget", model="m") == 8
        full = [size for size in sizes[7:-1] if size in (2, 4)]
        assert full.count(2) > 16, "not before many full batches succeeded"
        assert full == sorted(full), "one doubling after the other"


async def test_small_batches_do_not_restore_the_budget() -> None:
    metrics = new_metrics()
    is_failing = [True]

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        if is_failing[0]:
            raise DeviceOutOfMemory
        return length_of(inputs)

    async with running_batcher(predict, BatchLimits(8, 8, 1000), metrics=metrics) as batcher:
        (outcome,) = raws(await start_compute(batcher, ["alone"], tokens=8))
        assert isinstance(outcome, InferenceFailed)
        is_failing[0] = False
        for number in range(200):
            await start_compute(batcher, [f"small {number}"])
    assert value(metrics, "assay_batch_token_budget", model="m") == 4


async def test_closing_finishes_admitted_inputs_and_refuses_new_ones() -> None:
    async with busy_batcher() as (batcher, gate, first):
        queued = asyncio.create_task(batcher.compute([text_input("queued")], deadline()))
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close(TIMEOUT_SECONDS))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await batcher.compute([text_input("late")], deadline())
        gate.open.set()
        await closing
        assert raws(await first) == [(5.0,)]
        assert raws(await queued) == [(6.0,)]


async def test_closing_settles_unfinished_inputs_after_the_timeout() -> None:
    async with busy_batcher() as (batcher, _, first):
        queued = asyncio.create_task(batcher.compute([text_input("queued")], deadline()))
        await asyncio.sleep(0)
        await batcher.close(0.0)
        for caller in (first, queued):
            assert isinstance((await caller)[0].value, ShuttingDown)


async def test_a_device_that_accepts_no_work_fails_its_items_and_reports_death_once() -> None:
    deaths: list[str] = []
    executor = device_thread()
    batcher = DynamicBatcher(
        name="m",
        predict=length_of,
        thread=executor,
        limits=LIMITS,
        metrics=new_metrics(),
        clock=time.monotonic,
        on_death=deaths.append,
    )
    batcher.start()
    executor.shutdown()
    (outcome,) = await batcher.compute([text_input("a")], deadline())
    assert isinstance(outcome.value, InferenceFailed)
    assert not batcher.alive
    with pytest.raises(ShuttingDown):
        await batcher.compute([text_input("a")], deadline())
    await batcher.close(TIMEOUT_SECONDS)
    (message,) = deaths
    assert message.startswith("m can compute no more: RuntimeError in submit")


async def test_a_device_that_cancels_accepted_work_reports_death() -> None:
    deaths: list[str] = []
    executor = CountingExecutor()
    async with busy_batcher(executor=executor, on_death=deaths.append) as (batcher, gate, first):
        staged = start_compute(batcher, [f"n{i}" for i in range(8)])
        await run_event_loop()
        executor.shutdown(wait=False, cancel_futures=True)
        gate.open.set()
        for outcome in await staged:
            assert isinstance(outcome.value, InferenceFailed)
        assert raws(await first) == [(5.0,)]
        assert len(deaths) == 1
        assert batcher.pending_tokens == 0


async def test_a_broken_loop_fails_all_inputs_and_reports_death_without_their_texts() -> None:
    def broken_cost(inputs: Sequence[Input]) -> int:
        raise KeyError(inputs[0].payload)

    deaths: list[str] = []
    async with running_batcher(length_of, cost=broken_cost, on_death=deaths.append) as batcher:
        for outcome in await start_compute(batcher, ["secret", "b"]):
            assert isinstance(outcome.value, InferenceFailed)
        assert not batcher.alive
    (message,) = deaths
    assert "KeyError in broken_cost" in message
    assert "secret" not in message


async def test_a_cancelled_loop_reports_death_and_a_closed_one_does_not() -> None:
    deaths: list[str] = []
    async with busy_batcher(on_death=deaths.append) as (_, gate, first):
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "batcher m")
        task.cancel()
        assert isinstance((await first)[0].value, InferenceFailed)
        assert deaths == ["m can compute no more: its batcher was cancelled"]
        gate.open.set()
    deaths.clear()
    async with busy_batcher(on_death=deaths.append) as (batcher, gate, _):
        await batcher.close(0.0)
        gate.open.set()
    assert deaths == []


async def test_a_hung_forward_pass_is_detected() -> None:
    clock = AdjustableClock()
    async with busy_batcher(clock=clock, hang_seconds=60.0) as (batcher, gate, first):
        assert not batcher.hung
        clock.offset += 100.0
        assert batcher.stuck_seconds >= 100.0
        assert batcher.hung
        clock.offset -= 1000.0
        assert batcher.stuck_seconds == 0.0, "the clock was set back"
        gate.open.set()
        await first
        assert batcher.stuck_seconds == 0.0
