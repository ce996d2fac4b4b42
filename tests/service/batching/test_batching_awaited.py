"""DynamicBatcher with an asynchronous predict: concurrent, cancelled without a waiter."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeGuard

import pytest
from support.batchers import (
    TIMEOUT_SECONDS,
    AdjustableClock,
    deadline,
    raws,
    run_event_loop,
    start_compute,
)
from support.doubles import length_of, new_metrics, text_input, value

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.executor import MAX_AWAITED
from assay.errors import AssayError, InferenceFailed, ShuttingDown
from assay.metrics import Metrics
from assay_models import deadlines
from assay_models.base import Input, ItemError, Raw, Raws
from assay_models.remote import RemoteCallFailed

ALONE = BatchLimits(max_batch_tokens=64, max_batch_size=1, max_queue_tokens=1000)
TOGETHER = BatchLimits(max_batch_tokens=64, max_batch_size=64, max_queue_tokens=1000)


@dataclass
class RemotePredict:
    """An asynchronous predict whose inputs wait until they are released by name."""

    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, inputs: Sequence[Input]) -> Sequence[Raw]:
        names = [row.payload for row in inputs]
        self.started += names
        self.entered.set()
        try:
            for name in names:
                await self.gates.setdefault(name, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.cancelled += names
            raise
        return length_of(inputs)

    def release(self, *names: str) -> None:
        for name in names:
            self.gates.setdefault(name, asyncio.Event()).set()


@asynccontextmanager
async def awaited_batcher(
    predict: Callable[[Sequence[Input]], Awaitable[Raws]],
    limits: BatchLimits = ALONE,
    metrics: Metrics | None = None,
    clock: AdjustableClock | None = None,
) -> AsyncIterator[DynamicBatcher]:
    deaths: list[str] = []
    batcher = DynamicBatcher(
        name="m",
        predict=predict,
        thread=None,
        limits=limits,
        metrics=metrics or new_metrics(),
        clock=clock or AdjustableClock(),
        on_death=deaths.append,
        hang_seconds=120.0,
    )
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.close(TIMEOUT_SECONDS)
    assert not deaths


async def test_a_slow_input_does_not_delay_others() -> None:
    remote = RemotePredict()
    async with awaited_batcher(remote) as batcher:
        slow = start_compute(batcher, ["slow"])
        await remote.entered.wait()
        remote.release("a", "bb")
        assert raws(await batcher.compute([text_input("a"), text_input("bb")], deadline())) == [
            (1.0,),
            (2.0,),
        ]
        assert not slow.done()
        remote.release("slow")
        assert raws(await slow) == [(4.0,)]


async def test_inputs_beyond_the_maximum_wait_in_order() -> None:
    remote = RemotePredict()
    names = [f"n{number:03}" for number in range(MAX_AWAITED + 8)]
    async with awaited_batcher(remote) as batcher:
        caller = start_compute(batcher, names)
        await run_event_loop(20)
        assert remote.started == names[:MAX_AWAITED]
        urgent = start_compute(batcher, ["urgent"], "interactive")
        await run_event_loop(20)
        remote.release(names[5])
        await run_event_loop(20)
        assert remote.started[MAX_AWAITED:] == ["urgent"]
        remote.release("urgent", *names)
        await asyncio.gather(caller, urgent)
        assert sorted(remote.started) == sorted([*names, "urgent"])


async def test_an_input_without_a_waiter_is_cancelled() -> None:
    remote, metrics = RemotePredict(), new_metrics()
    async with awaited_batcher(remote, metrics=metrics) as batcher:
        caller = start_compute(batcher, ["gone"])
        other = start_compute(batcher, ["wanted"])
        await run_event_loop()
        caller.cancel()
        await run_event_loop()
        assert remote.cancelled == ["gone"]
        assert batcher.pending_tokens == 1
        assert value(metrics, "assay_dropped_total", model="m", reason="abandoned") == 1
        remote.release("wanted")
        assert raws(await other) == [(6.0,)]
    assert value(metrics, "assay_forwards_total", model="m", outcome="failed") == 0


async def test_an_input_with_another_waiter_is_not_cancelled() -> None:
    remote = RemotePredict()
    async with awaited_batcher(remote) as batcher:
        first, second = start_compute(batcher, ["shared"]), start_compute(batcher, ["shared"])
        await run_event_loop()
        first.cancel()
        await run_event_loop()
        assert remote.cancelled == []
        remote.release("shared")
        assert raws(await second) == [(6.0,)]
        assert remote.started == ["shared"]


async def test_an_input_requested_again_during_its_cancellation_is_computed() -> None:
    remote = RemotePredict()
    async with awaited_batcher(remote) as batcher:
        first = start_compute(batcher, ["again"])
        await run_event_loop()
        first.cancel()
        second = start_compute(batcher, ["again"])
        await run_event_loop()
        assert remote.cancelled == ["again"]
        remote.release("again")
        assert raws(await second) == [(5.0,)]
        assert remote.started == ["again", "again"]


async def test_a_passed_deadline_cancels_the_forward_pass() -> None:
    remote = RemotePredict()
    async with awaited_batcher(remote) as batcher:
        await batcher.compute([text_input("late")], deadline(0.01))
        await run_event_loop()
        assert remote.cancelled == ["late"]
        assert batcher.pending_tokens == 0


async def test_an_item_error_keeps_its_code_and_detail() -> None:
    async def predict(inputs: Sequence[Input]) -> Sequence[Raw]:
        if any(row.payload == "odd" for row in inputs):
            raise ItemError("not_today", "come back tomorrow")
        return length_of(inputs)

    async with awaited_batcher(predict, BatchLimits(64, 8, 1000)) as batcher:
        names = ["a", "odd", "bb"]
        first, odd, last = raws(await batcher.compute([*map(text_input, names)], deadline()))
    assert (first, last) == ((1.0,), (2.0,))
    assert isinstance(odd, InferenceFailed)
    assert (odd.code, odd.detail) == ("not_today", "come back tomorrow")
    assert InferenceFailed("another").code == "inference_failed"


async def test_a_model_that_raises_cancelled_error_fails_only_its_item() -> None:
    async def predict(inputs: Sequence[Input]) -> Sequence[Raw]:
        if inputs[0].payload == "odd":
            raise asyncio.CancelledError
        return length_of(inputs)

    async with awaited_batcher(predict) as batcher:
        (odd,) = raws(await batcher.compute([text_input("odd")], deadline()))
        assert isinstance(odd, InferenceFailed)
        assert raws(await batcher.compute([text_input("a")], deadline())) == [(1.0,)]


async def test_the_batcher_hangs_if_no_pass_ends_and_not_if_one_is_slow() -> None:
    remote, clock = RemotePredict(), AdjustableClock()
    async with awaited_batcher(remote, clock=clock) as batcher:
        slow = start_compute(batcher, ["slow"])
        await remote.entered.wait()
        for _ in range(3):
            clock.offset += 100.0
            remote.release("a")
            await batcher.compute([text_input("a")], clock() + TIMEOUT_SECONDS)
            assert not batcher.hung
        clock.offset += 200.0
        assert batcher.hung
        remote.release("slow")
        await slow


@pytest.mark.parametrize("timeout", [0.0, 0.01])
async def test_closing_cancels_awaited_forward_passes(timeout: float) -> None:
    remote = RemotePredict()
    async with awaited_batcher(remote) as batcher:
        caller = start_compute(batcher, ["long"])
        await remote.entered.wait()
        await batcher.close(timeout)
        assert remote.cancelled == ["long"]
        (outcome,) = raws(await caller)
        assert isinstance(outcome, ShuttingDown)


async def test_error_in_the_place_of_a_raw_fails_that_input_alone() -> None:
    calls = []

    async def predict(inputs: Sequence[Input]) -> Sequence[Raw | ItemError]:
        calls.append(len(inputs))
        bad = ItemError("engine_refused", "for a test")
        return [bad if row.payload == "bad" else (1.0,) for row in inputs]

    async with awaited_batcher(predict, TOGETHER) as batcher:
        inputs = [text_input(name) for name in ("a", "bad", "b")]
        first, second, third = raws(await batcher.compute(inputs, deadline()))
        assert (first, third) == ((1.0,), (1.0,))
        assert isinstance(second, InferenceFailed)
        assert (second.code, second.detail) == ("engine_refused", "for a test")
        assert calls == [3]
        assert batcher.last_success is not None


async def test_batch_of_errors_alone_is_no_success() -> None:
    async def predict(inputs: Sequence[Input]) -> Sequence[Raw | ItemError]:
        return [ItemError("engine_refused", "for a test") for _ in inputs]

    async with awaited_batcher(predict, TOGETHER) as batcher:
        await batcher.compute([text_input("a")], deadline())
        assert batcher.last_success is None


async def test_call_that_failed_as_a_whole_is_not_split() -> None:
    calls = []

    async def predict(inputs: Sequence[Input]) -> Sequence[Raw]:
        calls.append(len(inputs))
        raise RemoteCallFailed("engine_unavailable", "for a test")

    metrics = new_metrics()
    async with awaited_batcher(predict, TOGETHER, metrics) as batcher:
        inputs = [text_input(name) for name in "abcdefgh"]
        outcomes = raws(await batcher.compute(inputs, deadline()))
        assert {(error.code, error.retryable) for error in outcomes if is_failure(error)} == {
            ("engine_unavailable", True)
        }
        assert calls == [8]
        assert value(metrics, "assay_forwards_total", model="m", outcome="failed") == 1


def is_failure(outcome: object) -> TypeGuard[AssayError]:
    return isinstance(outcome, AssayError)


async def test_predict_sees_the_latest_deadline_of_the_inputs_callers() -> None:
    seen: list[float] = []
    entered, gate = asyncio.Event(), asyncio.Event()

    async def predict(inputs: Sequence[Input]) -> Sequence[Raw]:
        seen.append(deadlines.latest())
        entered.set()
        await gate.wait()
        seen.append(deadlines.latest())
        return [(1.0,) for _ in inputs]

    async with awaited_batcher(predict, TOGETHER) as batcher:
        first, later = deadline(10), deadline(20)
        one = asyncio.create_task(batcher.compute([text_input("a")], first))
        await entered.wait()
        other = asyncio.create_task(batcher.compute([text_input("a")], later))
        await run_event_loop()
        gate.set()
        await asyncio.gather(one, other)
    assert seen == [first, later]
    assert deadlines.latest() == math.inf
