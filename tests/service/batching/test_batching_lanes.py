"""DynamicBatcher under load: the staged batch, and which lane goes first."""

import asyncio
from collections.abc import Sequence

import pytest
from support.batchers import (
    SOON,
    Clock,
    CountingExecutor,
    asked,
    busy,
    entered,
    raws,
    running,
    turns,
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
from assay.types import LANES
from assay_models.base import Input, Raw


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
