"""DynamicBatcher: forming batches, sharing inputs, admission, and settling every input once."""

import asyncio
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batchers import (
    LIMITS,
    TIMEOUT_SECONDS,
    AdjustableClock,
    busy_batcher,
    deadline,
    raws,
    running_batcher,
    wait_until_entered,
)
from support.doubles import Gate, length_of, new_metrics, text_input, value

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.errors import (
    DeadlineExceeded,
    InferenceFailed,
    Overloaded,
    RequestTooLarge,
)
from assay_models.base import Input, Raw


async def test_raws_of_different_lengths_are_returned_in_order() -> None:
    names = ["four", "a", "threeee", "bb"]
    async with running_batcher(length_of) as batcher:
        inputs = [text_input(name, len(name)) for name in names]
        assert raws(await batcher.compute(inputs, deadline())) == [(float(len(n)),) for n in names]


async def test_no_inputs_give_no_outcomes() -> None:
    async with running_batcher(length_of) as batcher:
        assert await batcher.compute([], deadline()) == []


async def test_inputs_form_one_batch_while_the_device_is_busy() -> None:
    async with busy_batcher() as (batcher, gate, _):
        names = [f"n{i}" for i in range(8)]
        waiting = [
            asyncio.create_task(batcher.compute([text_input(name)], deadline())) for name in names
        ]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*waiting)
        assert gate.batches == [["first"], names]


async def test_identical_keys_are_computed_once_within_and_across_requests() -> None:
    async with busy_batcher() as (batcher, gate, first):
        second = asyncio.create_task(
            batcher.compute([text_input("first"), text_input("x"), text_input("x")], deadline())
        )
        await asyncio.sleep(0)
        gate.open.set()
        outcomes = await second
        assert [outcome.source for outcome in outcomes] == ["shared", "computed", "shared"]
        assert (await first)[0].value == (5.0,)
        assert sorted(chain(*gate.batches)) == ["first", "x"]


async def test_a_batch_keeps_its_bounds_in_padded_tokens_and_rows() -> None:
    async with busy_batcher(BatchLimits(40, 3, 1000)) as (batcher, gate, _):
        inputs = [text_input(f"s{i}", 10) for i in range(5)] + [text_input("long", 40)]
        waiting = asyncio.create_task(batcher.compute(inputs, deadline()))
        await asyncio.sleep(0)
        gate.open.set()
        await waiting
        assert gate.batches[1:] == [["s0", "s1", "s2"], ["s3", "s4"], ["long"]]


async def test_a_request_that_does_not_fit_is_refused_as_a_whole() -> None:
    metrics = new_metrics()
    async with busy_batcher(BatchLimits(64, 8, 10), metrics) as (batcher, gate, _):
        with pytest.raises(Overloaded) as refusal:
            await batcher.compute([text_input("a", 5), text_input("b", 5)], deadline())
        assert refusal.value.retry_after is not None
        assert batcher.pending_tokens == 1
        assert value(metrics, "assay_refused_total", model="m") == 1
        fits = asyncio.create_task(batcher.compute([text_input("c", 9)], deadline()))
        await asyncio.sleep(0)
        gate.open.set()
        assert raws(await fits) == [(1.0,)]


async def test_a_request_larger_than_the_queue_is_too_large() -> None:
    async with running_batcher(length_of, BatchLimits(64, 8, 10)) as batcher:
        with pytest.raises(RequestTooLarge):
            await batcher.compute([text_input("a", 11)], deadline())


@pytest.mark.parametrize("cancelled", range(4))
async def test_a_cancelled_caller_leaves_the_others_their_raws(cancelled: int) -> None:
    async with busy_batcher() as (batcher, gate, _):
        callers = [
            asyncio.create_task(
                batcher.compute([text_input(f"n{i}"), text_input("all")], deadline())
            )
            for i in range(4)
        ]
        await asyncio.sleep(0)
        callers[cancelled].cancel()
        gate.open.set()
        results = await asyncio.gather(*callers, return_exceptions=True)
        for index, result in enumerate(results):
            if index == cancelled:
                assert type(result) is asyncio.CancelledError
            else:
                assert isinstance(result, list)
                assert raws(result) == [(2.0,), (3.0,)]


async def test_an_abandoned_input_is_dropped_before_it_costs_compute() -> None:
    metrics = new_metrics()
    async with busy_batcher(metrics=metrics) as (batcher, gate, _):
        caller = asyncio.create_task(batcher.compute([text_input("gone", 7)], deadline()))
        await asyncio.sleep(0)
        assert batcher.pending_tokens == 8
        caller.cancel()
        await asyncio.wait({caller})
        assert batcher.pending_tokens == 1
        gate.open.set()
        await batcher.compute([text_input("next")], deadline())
        assert gate.batches == [["first"], ["next"]]
        assert value(metrics, "assay_dropped_total", model="m", reason="abandoned") == 1


async def test_an_expired_input_is_dropped_and_has_a_deadline_error() -> None:
    async with busy_batcher() as (batcher, gate, _):
        (outcome,) = await batcher.compute([text_input("late")], deadline(0.0))
        assert isinstance(outcome.value, DeadlineExceeded)
        gate.open.set()
        await batcher.compute([text_input("next")], deadline())
        assert gate.batches == [["first"], ["next"]]


async def test_retry_after_is_the_time_in_which_the_excess_drains() -> None:
    clock = AdjustableClock()
    gate = Gate()
    gate.open.set()

    def slow(inputs: Sequence[Input]) -> Sequence[Raw]:
        clock.offset += 10.0
        return gate(inputs)

    async with running_batcher(slow, BatchLimits(64, 8, 160), clock=clock) as batcher:
        soon = clock() + 1000.0
        await batcher.compute([text_input("a", 100)], soon)
        gate.open.clear()
        gate.entered.clear()
        caller = asyncio.create_task(batcher.compute([text_input("b", 100)], soon + 1000.0))
        await wait_until_entered(gate)
        with pytest.raises(Overloaded) as refusal:
            await batcher.compute([text_input("c", 80)], soon)
        gate.open.set()
        await caller
    assert refusal.value.retry_after == pytest.approx(3.0, rel=0.1), "30 too many, 10 a second"


async def test_true_and_computed_tokens_are_counted() -> None:
    def shared_prefix(inputs: Sequence[Input]) -> int:
        return 10 + sum(row.tokens - 10 for row in inputs)

    for cost, computed in ((None, 3 * 16), (shared_prefix, 10 + 1 + 2 + 6)):
        metrics = new_metrics()
        options: dict[str, Any] = {} if cost is None else {"cost": cost}
        async with running_batcher(length_of, metrics=metrics, **options) as batcher:
            inputs = [text_input("a", 11), text_input("b", 12), text_input("c", 16)]
            await batcher.compute(inputs, deadline())
        assert value(metrics, "assay_tokens_total", model="m") == 39
        assert value(metrics, "assay_padded_tokens_total", model="m") == computed


@pytest.mark.parametrize("jump", [-1e6, 1e6])
async def test_a_clock_jump_gives_no_negative_times_and_no_failure(jump: float) -> None:
    clock = AdjustableClock()

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        clock.offset += jump
        return length_of(inputs)

    async with running_batcher(predict, clock=clock) as batcher:
        for name in ("a", "b", "c"):
            caller = batcher.compute(
                [text_input(name), text_input("all")], clock() + TIMEOUT_SECONDS
            )
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
    assert raws(await batcher.compute([text_input("abc")], deadline())) == [(3.0,)]
    await batcher.close(TIMEOUT_SECONDS)


@settings(max_examples=50, deadline=None)
@given(
    requests=st.lists(
        st.lists(st.tuples(st.integers(0, 30), st.integers(1, 64)), max_size=12), max_size=12
    ),
    poison=st.sets(st.integers(0, 30), max_size=4),
    cancelled=st.sets(st.integers(0, 11), max_size=4),
)
def test_every_caller_gets_the_outcome_of_every_input(
    requests: list[list[tuple[int, int]]], poison: set[int], cancelled: set[int]
) -> None:
    tokens = {name: length for request in requests for name, length in request}

    def predict(inputs: Sequence[Input]) -> list[Raw]:
        if any(int(row.payload) in poison for row in inputs):
            raise RuntimeError
        assert len(inputs) * max(row.tokens for row in inputs) <= 64 or len(inputs) == 1
        return [(float(row.payload),) for row in inputs]

    async def scenario() -> None:
        async with running_batcher(predict, BatchLimits(64, 8, 100_000)) as batcher:
            callers = [
                asyncio.create_task(
                    batcher.compute([text_input(str(n), tokens[n]) for n, _ in request], deadline())
                )
                for request in requests
            ]
            await asyncio.sleep(0)
            for index in cancelled & set(range(len(callers))):
                callers[index].cancel()
            answers = await asyncio.gather(*callers, return_exceptions=True)
            for index, (request, answer) in enumerate(zip(requests, answers, strict=True)):
                if index in cancelled and request:
                    assert type(answer) is asyncio.CancelledError
                    continue
                assert isinstance(answer, list), repr(answer)
                for (name, _), outcome in zip(request, answer, strict=True):
                    if name in poison:
                        assert type(outcome.value) is InferenceFailed
                    else:
                        assert outcome.value == (float(name),)
        assert batcher.pending_tokens == 0

    asyncio.run(scenario())
