"""DynamicBatcher under load: the staged batch, and the order of lanes."""

import asyncio
from collections.abc import Sequence

import pytest
from support.batchers import (
    TIMEOUT_SECONDS,
    AdjustableClock,
    CountingExecutor,
    busy_batcher,
    raws,
    run_event_loop,
    running_batcher,
    start_compute,
    wait_until_entered,
)
from support.doubles import Gate, length_of, new_metrics, value

from assay.batching.batcher import BatchLimits
from assay.errors import (
    DeadlineExceeded,
    InferenceFailed,
    Overloaded,
    RequestTooLarge,
    ShuttingDown,
)
from assay.types import LANES, Lane
from assay_models.base import Input, Raw


class TestStaging:
    """Staging: a full batch is submitted to the device while it computes the previous one."""

    NAMES = tuple(f"n{i}" for i in range(8))

    async def test_one_full_batch_is_staged_and_no_second(self) -> None:
        executor = CountingExecutor()
        async with busy_batcher(executor=executor) as (batcher, gate, _):
            for name in self.NAMES[:7]:
                start_compute(batcher, [name])
            await run_event_loop()
            assert executor.submitted == 1, "too little to stage: it may still gather"
            last = start_compute(batcher, [self.NAMES[7]])
            more = start_compute(batcher, [f"m{i}" for i in range(8)])
            await run_event_loop()
            assert executor.submitted == 2
            gate.open.set()
            await asyncio.gather(last, more)
            assert gate.batches == [["first"], [*self.NAMES], [f"m{i}" for i in range(8)]]

    async def test_a_batch_full_in_tokens_is_staged(self) -> None:
        executor = CountingExecutor()
        async with busy_batcher(executor=executor) as (batcher, gate, _):
            staged = start_compute(batcher, ["a", "b"], tokens=32)
            await run_event_loop()
            assert executor.submitted == 2
            gate.open.set()
            await staged

    async def test_the_device_continues_while_the_event_loop_is_busy(self) -> None:
        async with busy_batcher() as (batcher, gate, _):
            staged = start_compute(batcher, self.NAMES)
            await run_event_loop()
            gate.entered.clear()
            gate.open.set()
            assert gate.entered.wait(TIMEOUT_SECONDS), "this loop has not run since the gate opened"
            assert gate.batches == [["first"], [*self.NAMES]]
            await staged

    async def test_an_input_abandoned_after_staging_costs_no_compute(self) -> None:
        metrics = new_metrics()
        executor = CountingExecutor()
        async with busy_batcher(metrics=metrics, executor=executor) as (batcher, gate, _):
            leaving, staying = (
                start_compute(batcher, self.NAMES[:7]),
                start_compute(batcher, self.NAMES[7:]),
            )
            await run_event_loop()
            assert executor.submitted == 2
            leaving.cancel()
            await asyncio.wait({leaving})
            assert batcher.pending_tokens == 2
            gate.open.set()
            assert raws(await staying) == [(2.0,)]
            assert gate.batches == [["first"], [self.NAMES[7]]]
        assert value(metrics, "assay_dropped_total", model="m", reason="abandoned") == 7

    async def test_an_input_expired_after_staging_costs_no_compute(self) -> None:
        metrics, clock = new_metrics(), AdjustableClock()
        async with busy_batcher(metrics=metrics, clock=clock) as (batcher, gate, _):
            staged = start_compute(batcher, self.NAMES)
            await run_event_loop()
            clock.offset += 2 * TIMEOUT_SECONDS
            gate.open.set()
            for outcome in await staged:
                assert isinstance(outcome.value, DeadlineExceeded)
            assert gate.batches == [["first"]], "nothing of the batch was left to compute"
        assert value(metrics, "assay_dropped_total", model="m", reason="expired") == 8
        assert value(metrics, "assay_queue_tokens", model="m") == 0

    async def test_a_staged_batch_is_recalled_for_a_higher_lane_and_computed_later(self) -> None:
        async with busy_batcher() as (batcher, gate, _):
            staged = start_compute(batcher, self.NAMES, "bulk")
            await run_event_loop()
            urgent = start_compute(batcher, ["urgent"], "interactive")
            await run_event_loop()
            gate.open.set()
            await asyncio.gather(staged, urgent)
            assert gate.batches == [["first"], ["urgent", *self.NAMES[:7]], [self.NAMES[7]]]

    async def test_a_failed_batch_before_a_staged_one_is_still_split(self) -> None:
        def predict(inputs: Sequence[Input]) -> list[Raw]:
            if any(row.payload == "poison" for row in inputs):
                raise RuntimeError
            return length_of(inputs)

        gate = Gate(predict)
        async with running_batcher(gate, BatchLimits(64, 4, 1000)) as batcher:
            failing = start_compute(batcher, ["a", "poison", "b", "c"])
            await wait_until_entered(gate)
            staged = start_compute(batcher, self.NAMES[:4])
            await run_event_loop()
            gate.open.set()
            answers = raws(await failing)
            assert isinstance(answers.pop(1), InferenceFailed)
            assert answers == [(1.0,)] * 3
            assert raws(await staged) == [(2.0,)] * 4

    async def test_closing_starts_no_staged_batch_after_the_timeout(self) -> None:
        async with busy_batcher() as (batcher, gate, _):
            staged = start_compute(batcher, self.NAMES)
            await run_event_loop()
            await batcher.close(0.0)
            assert all(isinstance(outcome.value, ShuttingDown) for outcome in await staged)
            gate.open.set()
        assert gate.batches == [["first"]]


class TestLanes:
    async def test_a_higher_lane_goes_first_and_every_wait_is_counted(self) -> None:
        metrics = new_metrics()
        async with busy_batcher(BatchLimits(64, 1, 1000), metrics) as (batcher, gate, _):
            tasks = [start_compute(batcher, [lane], lane, tokens=2) for lane in reversed(LANES)]
            await run_event_loop()
            gate.open.set()
            await asyncio.gather(*tasks)
            assert gate.batches == [["first"], *([lane] for lane in LANES)]
        for lane in LANES:
            count = value(metrics, "assay_queue_seconds_count", model="m", lane=lane)
            assert count == (2 if lane == "training" else 1)

    async def test_an_input_requested_by_a_higher_lane_is_promoted(self) -> None:
        async with busy_batcher(BatchLimits(64, 1, 1000)) as (batcher, gate, _):
            tasks = [
                start_compute(batcher, ["same"], "bulk", tokens=2),
                start_compute(batcher, ["training"], tokens=2),
                start_compute(batcher, ["same"], "interactive", tokens=2),
            ]
            await run_event_loop()
            gate.open.set()
            await asyncio.gather(*tasks)
            assert gate.batches == [["first"], ["same"], ["training"]]

    async def test_bulk_leaves_room_for_interactive_requests(self) -> None:
        async with busy_batcher(BatchLimits(64, 8, 160)) as (batcher, gate, _):
            bulk = start_compute(batcher, ["bulk"], "bulk", tokens=119)
            await run_event_loop()
            too_large: list[tuple[Lane, int]] = [("bulk", 2), ("training", 31)]
            for lane, tokens in too_large:
                with pytest.raises(Overloaded):
                    await start_compute(batcher, ["more"], lane, tokens)
            urgent = start_compute(batcher, ["urgent"], "interactive", tokens=40)
            await run_event_loop()
            gate.open.set()
            assert raws(await urgent) == [(6.0,)]
            await bulk

    async def test_a_request_larger_than_its_lanes_room_is_too_large(self) -> None:
        async with running_batcher(length_of, BatchLimits(64, 8, 160)) as batcher:
            assert raws(await start_compute(batcher, ["a"], "interactive", tokens=160)) == [(1.0,)]
            with pytest.raises(RequestTooLarge, match="holds 120"):
                await start_compute(batcher, ["a"], "bulk", tokens=121)
