"""DynamicBatcher: forming, sharing, admission, one settlement for every future on every path."""

import asyncio
import time
from collections.abc import Sequence
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batchers import LIMITS, SOON, Clock, busy, deadline, entered, raws, running
from support.doubles import Gate, length_of, new_metrics, one_input, value

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.errors import (
    DeadlineExceeded,
    InferenceFailed,
    Overloaded,
    RequestTooLarge,
)
from assay_models.base import Input, Raw


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
        assert [outcome.source for outcome in outcomes] == ["shared", "computed", "shared"]
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


async def test_a_refusal_says_when_what_is_too_much_will_have_drained() -> None:
    clock = Clock()
    gate = Gate()
    gate.open.set()

    def slow(inputs: Sequence[Input]) -> Sequence[Raw]:
        clock.moved += 10.0
        return gate(inputs)

    async with running(slow, BatchLimits(64, 8, 160), clock=clock) as batcher:
        soon = clock() + 1000.0
        await batcher.compute([one_input("a", 100)], soon)
        gate.open.clear()
        gate.entered.clear()
        caller = asyncio.create_task(batcher.compute([one_input("b", 100)], soon + 1000.0))
        await entered(gate)
        with pytest.raises(Overloaded) as refusal:
            await batcher.compute([one_input("c", 80)], soon)
        gate.open.set()
        await caller
    assert refusal.value.retry_after == pytest.approx(3.0, rel=0.1), "30 too many, 10 a second"


async def test_what_a_forward_pass_really_computes_is_counted_beside_the_true_tokens() -> None:
    def shared_prefix(inputs: Sequence[Input]) -> int:
        return 10 + sum(one.tokens - 10 for one in inputs)

    for cost, computed in ((None, 3 * 16), (shared_prefix, 10 + 1 + 2 + 6)):
        metrics = new_metrics()
        options = {} if cost is None else {"cost": cost}
        async with running(length_of, metrics=metrics, **options) as batcher:
            inputs = [one_input("a", 11), one_input("b", 12), one_input("c", 16)]
            await batcher.compute(inputs, deadline())
        assert value(metrics, "assay_tokens_total", model="m") == 39
        assert value(metrics, "assay_padded_tokens_total", model="m") == computed


@pytest.mark.parametrize("jump", [-1e6, 1e6])
async def test_a_clock_that_jumps_gives_no_negative_time_and_stops_nothing(jump: float) -> None:
    clock = Clock()

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        clock.moved += jump
        return length_of(inputs)

    async with running(predict, clock=clock) as batcher:
        for name in ("a", "b", "c"):
            caller = batcher.compute([one_input(name), one_input("all")], clock() + SOON)
            for outcome in await caller:
                assert outcome.queue_seconds >= 0.0
                assert outcome.predict_seconds >= 0.0
                assert isinstance(outcome.value, tuple)


async def test_an_asynchronous_predict_is_awaited() -> None:
    async def predict(inputs: Sequence[Input]) -> list[Raw]:
        await asyncio.sleep(0)
        return length_of(inputs)

    batcher = DynamicBatcher(
        name="m",
        predict=predict,
        thread=None,
        limits=LIMITS,
        metrics=new_metrics(),
        clock=time.monotonic,
    )
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
