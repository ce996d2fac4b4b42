"""DynamicBatcher: forming, sharing, admission, one settlement for every future on every path."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from typing import Any

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
from assay.queueing import LANES, Lane
from assay_models.base import DeviceOutOfMemory, Input, Raw

LIMITS = BatchLimits(max_batch_tokens=64, max_batch_size=8, max_queue_tokens=1000)
SOON = 30.0


class CountingExecutor(ThreadPoolExecutor):
    """A device thread that counts what it was handed."""

    def __init__(self) -> None:
        super().__init__(1)
        self.submitted = 0

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        self.submitted += 1
        return super().submit(*arguments, **named)


class Clock:
    """The true clock, moved by the test."""

    def __init__(self) -> None:
        self.moved = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.moved


@asynccontextmanager
async def running(
    predict: Predict,
    limits: BatchLimits = LIMITS,
    metrics: Metrics | None = None,
    executor: ThreadPoolExecutor | None = None,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> AsyncIterator[DynamicBatcher]:
    with executor or device() as thread:
        batcher = DynamicBatcher(
            "m", predict, thread, limits, metrics or new_metrics(), clock, **options
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
    limits: BatchLimits = LIMITS, metrics: Metrics | None = None, **options: Any
) -> AsyncIterator[tuple[DynamicBatcher, Gate, asyncio.Task[list[Outcome]]]]:
    """A batcher whose device is computing the input `first` until the gate opens."""
    gate = Gate()
    async with AsyncExitStack() as stack:
        batcher = await stack.enter_async_context(running(gate, limits, metrics, **options))
        stack.callback(gate.open.set)
        first = asyncio.create_task(batcher.compute([one_input("first")], deadline()))
        await entered(gate)
        yield batcher, gate, first
        gate.open.set()
        await asyncio.wait({first})


def asked(
    batcher: DynamicBatcher, names: Sequence[str], lane: Lane = "training", tokens: int = 1
) -> asyncio.Task[list[Outcome]]:
    """A caller on his way; he is admitted in the next turn of the loop."""
    inputs = [one_input(name, tokens) for name in names]
    return asyncio.create_task(batcher.compute(inputs, deadline(), lane))


async def turns(count: int = 5) -> None:
    """Let the event loop do all that is to do now."""
    for _ in range(count):
        await asyncio.sleep(0)


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
        "m", length_of, executor, LIMITS, new_metrics(), time.monotonic, on_death=told.append
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


class TestStaging:
    """A full batch is handed to the device while it still computes the one before."""

    NAMES = tuple(f"n{i}" for i in range(8))

    async def test_a_full_batch_is_staged_and_only_one(self) -> None:
        executor = CountingExecutor()
        async with busy(executor=executor) as (batcher, gate, _):
            for name in self.NAMES[:7]:
                asked(batcher, [name])
            await turns()
            assert executor.submitted == 1, "too little to stage: it may still gather"
            last = asked(batcher, [self.NAMES[7]])
            more = asked(batcher, [f"m{i}" for i in range(8)])
            await turns()
            assert executor.submitted == 2
            gate.open.set()
            await asyncio.gather(last, more)
            assert gate.batches == [["first"], [*self.NAMES], [f"m{i}" for i in range(8)]]

    async def test_a_batch_full_in_tokens_is_staged(self) -> None:
        executor = CountingExecutor()
        async with busy(executor=executor) as (batcher, gate, _):
            staged = asked(batcher, ["a", "b"], tokens=32)
            await turns()
            assert executor.submitted == 2
            gate.open.set()
            await staged

    async def test_the_device_goes_on_while_the_event_loop_is_busy(self) -> None:
        async with busy() as (batcher, gate, _):
            staged = asked(batcher, self.NAMES)
            await turns()
            gate.entered.clear()
            gate.open.set()
            assert gate.entered.wait(SOON), "this loop has not run since the gate opened"
            assert gate.batches == [["first"], [*self.NAMES]]
            await staged

    async def test_what_is_abandoned_after_staging_costs_no_compute(self) -> None:
        metrics = new_metrics()
        executor = CountingExecutor()
        async with busy(metrics=metrics, executor=executor) as (batcher, gate, _):
            leaving, staying = asked(batcher, self.NAMES[:7]), asked(batcher, self.NAMES[7:])
            await turns()
            assert executor.submitted == 2
            leaving.cancel()
            await asyncio.wait({leaving})
            assert batcher.pending_tokens == 2
            gate.open.set()
            assert raws(await staying) == [(2.0,)]
            assert gate.batches == [["first"], [self.NAMES[7]]]
        assert value(metrics, "assay_dropped_total", model="m", reason="abandoned") == 7

    async def test_what_expires_after_staging_costs_no_compute(self) -> None:
        metrics, clock = new_metrics(), Clock()
        async with busy(metrics=metrics, clock=clock) as (batcher, gate, _):
            staged = asked(batcher, self.NAMES)
            await turns()
            clock.moved += 2 * SOON
            gate.open.set()
            for outcome in await staged:
                assert isinstance(outcome.value, DeadlineExceeded)
            assert gate.batches == [["first"]], "nothing of the batch was left to compute"
        assert value(metrics, "assay_dropped_total", model="m", reason="expired") == 8
        assert value(metrics, "assay_queue_tokens", model="m") == 0

    async def test_a_staged_batch_makes_way_for_a_higher_lane_and_is_not_lost(self) -> None:
        async with busy() as (batcher, gate, _):
            staged = asked(batcher, self.NAMES, "bulk")
            await turns()
            urgent = asked(batcher, ["urgent"], "interactive")
            await turns()
            gate.open.set()
            await asyncio.gather(staged, urgent)
            assert gate.batches == [["first"], ["urgent", *self.NAMES[:7]], [self.NAMES[7]]]

    async def test_a_failed_batch_before_a_staged_one_is_still_split(self) -> None:
        def predict(inputs: Sequence[Input]) -> list[Raw]:
            if any(one.payload == "poison" for one in inputs):
                raise RuntimeError
            return length_of(inputs)

        gate = Gate(predict)
        async with running(gate, BatchLimits(64, 4, 1000)) as batcher:
            spoilt = asked(batcher, ["a", "poison", "b", "c"])
            await entered(gate)
            staged = asked(batcher, self.NAMES[:4])
            await turns()
            gate.open.set()
            answers = raws(await spoilt)
            assert isinstance(answers.pop(1), InferenceFailed)
            assert answers == [(1.0,)] * 3
            assert raws(await staged) == [(2.0,)] * 4

    async def test_closing_begins_no_staged_batch_after_its_time(self) -> None:
        async with busy() as (batcher, gate, _):
            staged = asked(batcher, self.NAMES)
            await turns()
            await batcher.close(0.0)
            assert all(isinstance(one.value, ShuttingDown) for one in await staged)
            gate.open.set()
        assert gate.batches == [["first"]]


class TestLanes:
    async def test_a_higher_lane_goes_first_and_every_wait_is_counted(self) -> None:
        metrics = new_metrics()
        async with busy(BatchLimits(64, 1, 1000), metrics) as (batcher, gate, _):
            tasks = [asked(batcher, [lane], lane, tokens=2) for lane in reversed(LANES)]
            await turns()
            gate.open.set()
            await asyncio.gather(*tasks)
            assert gate.batches == [["first"], *([lane] for lane in LANES)]
        for lane in LANES:
            counted = value(metrics, "assay_queue_seconds_count", model="m", lane=lane)
            assert counted == (2 if lane == "training" else 1)

    async def test_what_a_higher_lane_joins_moves_up_to_it(self) -> None:
        async with busy(BatchLimits(64, 1, 1000)) as (batcher, gate, _):
            tasks = [
                asked(batcher, ["same"], "bulk", tokens=2),
                asked(batcher, ["training"], tokens=2),
                asked(batcher, ["same"], "interactive", tokens=2),
            ]
            await turns()
            gate.open.set()
            await asyncio.gather(*tasks)
            assert gate.batches == [["first"], ["same"], ["training"]]

    async def test_bulk_cannot_keep_interactive_work_out(self) -> None:
        async with busy(BatchLimits(64, 8, 160)) as (batcher, gate, _):
            bulk = asked(batcher, ["bulk"], "bulk", tokens=119)
            await turns()
            for lane, tokens in (("bulk", 2), ("training", 31)):
                with pytest.raises(Overloaded):
                    await asked(batcher, ["more"], lane, tokens)
            urgent = asked(batcher, ["urgent"], "interactive", tokens=40)
            await turns()
            gate.open.set()
            assert raws(await urgent) == [(6.0,)]
            await bulk

    async def test_what_never_fits_its_lane_is_told_so(self) -> None:
        async with running(length_of, BatchLimits(64, 8, 160)) as batcher:
            assert raws(await asked(batcher, ["a"], "interactive", tokens=160)) == [(1.0,)]
            with pytest.raises(RequestTooLarge, match="holds 120"):
                await asked(batcher, ["a"], "bulk", tokens=121)


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
