"""DynamicBatcher: forming, sharing, admission, one settlement for every future on every path."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain

import pytest
from doubles import Gate, device, length_of, new_metrics, one_input, value
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.batching import BatchLimits, DynamicBatcher, Outcome, Predict
from assay.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NonFiniteScore,
    Overloaded,
    RequestTooLarge,
    ShuttingDown,
)
from assay.metrics import Metrics
from assay_models.base import DeviceOutOfMemory, Input, Raw

LIMITS = BatchLimits(max_batch_tokens=64, max_batch_size=8, max_queue_tokens=1000)
SOON = 30.0


@asynccontextmanager
async def running(
    predict: Predict, limits: BatchLimits = LIMITS, metrics: Metrics | None = None
) -> AsyncIterator[DynamicBatcher]:
    with device() as executor:
        batcher = DynamicBatcher(
            "m", predict, executor, limits, metrics or new_metrics(), time.monotonic
        )
        batcher.start()
        try:
            yield batcher
        finally:
            await batcher.close(SOON)


def deadline(seconds: float = SOON) -> float:
    return time.monotonic() + seconds


def raws(outcomes: Sequence[Outcome]) -> list[object]:
    return [outcome.value for outcome in outcomes]


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, SOON)


@asynccontextmanager
async def busy(
    limits: BatchLimits = LIMITS, metrics: Metrics | None = None
) -> AsyncIterator[tuple[DynamicBatcher, Gate, asyncio.Task[list[Outcome]]]]:
    """A batcher whose device is computing the input `first` until the gate opens."""
    gate = Gate()
    async with AsyncExitStack() as stack:
        batcher = await stack.enter_async_context(running(gate, limits, metrics))
        stack.callback(gate.open.set)
        first = asyncio.create_task(batcher.compute([one_input("first")], deadline()))
        await entered(gate)
        yield batcher, gate, first
        gate.open.set()
        await asyncio.wait({first})


async def test_raws_come_back_in_order_whatever_their_length() -> None:
    names = ["four", "a", "threeee", "bb"]
    async with running(length_of) as batcher:
        inputs = [one_input(name, len(name)) for name in names]
        assert raws(await batcher.compute(inputs, deadline())) == [(float(len(n)),) for n in names]


async def test_nothing_to_compute_is_nothing() -> None:
    async with running(length_of) as batcher:
        assert await batcher.compute([], deadline()) == []


async def test_the_next_batch_gathers_while_the_device_is_busy() -> None:
    async with busy() as (batcher, gate, _):
        names = [f"n{i}" for i in range(8)]
        waiting = [
            asyncio.create_task(batcher.compute([one_input(name)], deadline())) for name in names
        ]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*waiting)
        assert gate.batches == [["first"], names]


async def test_identical_keys_are_computed_once_within_and_across_requests() -> None:
    async with busy() as (batcher, gate, first):
        twice = asyncio.create_task(
            batcher.compute([one_input("first"), one_input("x"), one_input("x")], deadline())
        )
        await asyncio.sleep(0)
        gate.open.set()
        outcomes = await twice
        assert [outcome.shared for outcome in outcomes] == [True, False, True]
        assert (await first)[0].value == (5.0,)
        assert sorted(chain(*gate.batches)) == ["first", "x"]


async def test_a_batch_holds_its_bounds_in_padded_tokens_and_rows() -> None:
    async with busy(BatchLimits(40, 3, 1000)) as (batcher, gate, _):
        inputs = [one_input(f"s{i}", 10) for i in range(5)] + [one_input("long", 40)]
        waiting = asyncio.create_task(batcher.compute(inputs, deadline()))
        await asyncio.sleep(0)
        gate.open.set()
        await waiting
        assert gate.batches[1:] == [["s0", "s1", "s2"], ["s3", "s4"], ["long"]]


async def test_a_request_that_does_not_fit_is_refused_whole() -> None:
    metrics = new_metrics()
    async with busy(BatchLimits(64, 8, 10), metrics) as (batcher, gate, _):
        with pytest.raises(Overloaded) as refusal:
            await batcher.compute([one_input("a", 5), one_input("b", 5)], deadline())
        assert refusal.value.retry_after is not None
        assert batcher.pending_tokens == 1
        assert value(metrics, "assay_refused_total", model="m") == 1
        fits = asyncio.create_task(batcher.compute([one_input("c", 9)], deadline()))
        await asyncio.sleep(0)
        gate.open.set()
        assert raws(await fits) == [(1.0,)]


async def test_a_request_larger_than_the_queue_is_never_admitted() -> None:
    async with running(length_of, BatchLimits(64, 8, 10)) as batcher:
        with pytest.raises(RequestTooLarge):
            await batcher.compute([one_input("a", 11)], deadline())


@pytest.mark.parametrize("cancelled", range(4))
async def test_a_cancelled_caller_strands_nobody(cancelled: int) -> None:
    async with busy() as (batcher, gate, _):
        callers = [
            asyncio.create_task(batcher.compute([one_input(f"n{i}"), one_input("all")], deadline()))
            for i in range(4)
        ]
        await asyncio.sleep(0)
        callers[cancelled].cancel()
        gate.open.set()
        results = await asyncio.gather(*callers, return_exceptions=True)
        for index, result in enumerate(results):
            if index == cancelled:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert isinstance(result, list)
                assert raws(result) == [(2.0,), (3.0,)]


async def test_what_nobody_awaits_is_dropped_before_it_costs_compute() -> None:
    metrics = new_metrics()
    async with busy(metrics=metrics) as (batcher, gate, _):
        caller = asyncio.create_task(batcher.compute([one_input("gone", 7)], deadline()))
        await asyncio.sleep(0)
        assert batcher.pending_tokens == 8
        caller.cancel()
        await asyncio.wait({caller})
        assert batcher.pending_tokens == 1
        gate.open.set()
        await batcher.compute([one_input("next")], deadline())
        assert gate.batches == [["first"], ["next"]]
        assert value(metrics, "assay_dropped_total", model="m", reason="abandoned") == 1


async def test_an_expired_input_is_dropped_and_told() -> None:
    async with busy() as (batcher, gate, _):
        (outcome,) = await batcher.compute([one_input("late")], deadline(0.0))
        assert isinstance(outcome.value, DeadlineExceeded)
        gate.open.set()
        await batcher.compute([one_input("next")], deadline())
        assert gate.batches == [["first"], ["next"]]


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
    "error", [RuntimeError, KeyError, SystemExit, KeyboardInterrupt, MemoryError]
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


async def test_out_of_memory_halves_the_batch_and_tries_again() -> None:
    sizes: list[int] = []

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise DeviceOutOfMemory
        return length_of(inputs)

    async with running(predict, BatchLimits(8, 8, 1000)) as batcher:
        inputs = [one_input(f"n{i}") for i in range(8)]
        assert raws(await batcher.compute(inputs, deadline())) == [(2.0,)] * 8
        assert sizes == [8, 4, 2, 2, 4, 2, 2]
        sizes.clear()
        await batcher.compute([one_input(f"m{i}") for i in range(8)], deadline())
        assert max(sizes) == 1, "the halved budget holds for later batches"


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


async def test_a_dead_device_thread_fails_items_and_is_not_alive_forever() -> None:
    executor = device()
    batcher = DynamicBatcher("m", length_of, executor, LIMITS, new_metrics(), time.monotonic)
    batcher.start()
    executor.shutdown()
    (outcome,) = await batcher.compute([one_input("a")], deadline())
    assert isinstance(outcome.value, InferenceFailed)
    await batcher.close(SOON)


async def test_an_asynchronous_predict_is_awaited() -> None:
    async def predict(inputs: Sequence[Input]) -> list[Raw]:
        await asyncio.sleep(0)
        return length_of(inputs)

    batcher = DynamicBatcher("m", predict, None, LIMITS, new_metrics(), time.monotonic)
    batcher.start()
    assert raws(await batcher.compute([one_input("abc")], deadline())) == [(3.0,)]
    await batcher.close(SOON)


@settings(max_examples=50, deadline=None)
@given(
    requests=st.lists(
        st.lists(st.tuples(st.integers(0, 30), st.integers(1, 64)), max_size=12), max_size=12
    ),
    poison=st.sets(st.integers(0, 30), max_size=4),
    cancelled=st.sets(st.integers(0, 11), max_size=4),
)
def test_every_caller_gets_every_answer_once(
    requests: list[list[tuple[int, int]]], poison: set[int], cancelled: set[int]
) -> None:
    tokens = {name: length for request in requests for name, length in request}

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        if any(int(one.payload) in poison for one in inputs):
            raise RuntimeError
        assert len(inputs) * max(one.tokens for one in inputs) <= 64 or len(inputs) == 1
        return [(float(one.payload),) for one in inputs]

    async def scenario() -> None:
        async with running(predict, BatchLimits(64, 8, 100_000)) as batcher:
            callers = [
                asyncio.create_task(
                    batcher.compute([one_input(str(n), tokens[n]) for n, _ in request], deadline())
                )
                for request in requests
            ]
            await asyncio.sleep(0)
            for index in cancelled & set(range(len(callers))):
                callers[index].cancel()
            answers = await asyncio.gather(*callers, return_exceptions=True)
            for index, (request, answer) in enumerate(zip(requests, answers, strict=True)):
                if index in cancelled and request:
                    assert isinstance(answer, asyncio.CancelledError)
                elif isinstance(answer, list):
                    for (name, _), outcome in zip(request, answer, strict=True):
                        failed = isinstance(outcome.value, InferenceFailed)
                        assert failed if name in poison else outcome.value == (float(name),)
        assert batcher.pending_tokens == 0

    asyncio.run(scenario())
