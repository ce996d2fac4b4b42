"""DynamicBatcher over a predict that is awaited: side by side, stopped when nobody waits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from support.batchers import SOON, Clock, asked, deadline, raws, turns
from support.doubles import length_of, new_metrics, one_input, value

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.executor import MAX_AWAITED
from assay.errors import InferenceFailed, ShuttingDown
from assay.metrics import Metrics
from assay_models.base import Input, ItemError, Raw

ALONE = BatchLimits(max_batch_tokens=64, max_batch_size=1, max_queue_tokens=1000)


@dataclass
class Elsewhere:
    """A predict whose inputs wait elsewhere until they are let go by name."""

    doors: dict[str, asyncio.Event] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, inputs: Sequence[Input]) -> Sequence[Raw]:
        names = [one.payload for one in inputs]
        self.begun += names
        self.entered.set()
        try:
            for name in names:
                await self.doors.setdefault(name, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.stopped += names
            raise
        return length_of(inputs)

    def let_go(self, *names: str) -> None:
        for name in names:
            self.doors.setdefault(name, asyncio.Event()).set()


@asynccontextmanager
async def awaiting(
    predict: Callable[[Sequence[Input]], Awaitable[Sequence[Raw]]],
    limits: BatchLimits = ALONE,
    metrics: Metrics | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[DynamicBatcher]:
    told: list[str] = []
    batcher = DynamicBatcher(
        name="m",
        predict=predict,
        thread=None,
        limits=limits,
        metrics=metrics or new_metrics(),
        clock=clock or Clock(),
        on_death=told.append,
        hang_seconds=120.0,
    )
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.close(SOON)
    assert not told


async def test_a_slow_input_holds_up_nobody() -> None:
    elsewhere = Elsewhere()
    async with awaiting(elsewhere) as batcher:
        slow = asked(batcher, ["slow"])
        await elsewhere.entered.wait()
        elsewhere.let_go("a", "bb")
        assert raws(await batcher.compute([one_input("a"), one_input("bb")], deadline())) == [
            (1.0,),
            (2.0,),
        ]
        assert not slow.done()
        elsewhere.let_go("slow")
        assert raws(await slow) == [(4.0,)]


async def test_so_many_are_in_the_air_and_the_others_keep_their_places() -> None:
    elsewhere = Elsewhere()
    names = [f"n{number:03}" for number in range(MAX_AWAITED + 8)]
    async with awaiting(elsewhere) as batcher:
        caller = asked(batcher, names)
        await turns(20)
        assert elsewhere.begun == names[:MAX_AWAITED]
        urgent = asked(batcher, ["urgent"], "interactive")
        await turns(20)
        elsewhere.let_go(names[5])
        await turns(20)
        assert elsewhere.begun[MAX_AWAITED:] == ["urgent"]
        elsewhere.let_go("urgent", *names)
        await asyncio.gather(caller, urgent)
        assert sorted(elsewhere.begun) == sorted([*names, "urgent"])


async def test_what_nobody_waits_for_any_more_is_stopped() -> None:
    elsewhere, metrics = Elsewhere(), new_metrics()
    async with awaiting(elsewhere, metrics=metrics) as batcher:
        caller = asked(batcher, ["gone"])
        other = asked(batcher, ["wanted"])
        await turns()
        caller.cancel()
        await turns()
        assert elsewhere.stopped == ["gone"]
        assert batcher.pending_tokens == 1
        assert value(metrics, "assay_dropped_total", model="m", reason="abandoned") == 1
        elsewhere.let_go("wanted")
        assert raws(await other) == [(6.0,)]
    assert value(metrics, "assay_forwards_total", model="m", outcome="failed") == 0


async def test_what_somebody_else_waits_for_goes_on() -> None:
    elsewhere = Elsewhere()
    async with awaiting(elsewhere) as batcher:
        first, second = asked(batcher, ["shared"]), asked(batcher, ["shared"])
        await turns()
        first.cancel()
        await turns()
        assert elsewhere.stopped == []
        elsewhere.let_go("shared")
        assert raws(await second) == [(6.0,)]
        assert elsewhere.begun == ["shared"]


async def test_what_is_asked_for_again_while_it_is_being_stopped_is_computed() -> None:
    elsewhere = Elsewhere()
    async with awaiting(elsewhere) as batcher:
        first = asked(batcher, ["again"])
        await turns()
        first.cancel()
        second = asked(batcher, ["again"])
        await turns()
        assert elsewhere.stopped == ["again"]
        elsewhere.let_go("again")
        assert raws(await second) == [(5.0,)]
        assert elsewhere.begun == ["again", "again"]


async def test_a_deadline_stops_what_is_awaited() -> None:
    elsewhere = Elsewhere()
    async with awaiting(elsewhere) as batcher:
        await batcher.compute([one_input("late")], deadline(0.01))
        await turns()
        assert elsewhere.stopped == ["late"]
        assert batcher.pending_tokens == 0


async def test_an_item_error_of_one_input_is_told_as_it_is() -> None:
    async def predict(inputs: Sequence[Input]) -> Sequence[Raw]:
        if any(one.payload == "odd" for one in inputs):
            raise ItemError("not_today", "come back tomorrow")
        return length_of(inputs)

    async with awaiting(predict, BatchLimits(64, 8, 1000)) as batcher:
        names = ["a", "odd", "bb"]
        first, odd, last = raws(await batcher.compute([*map(one_input, names)], deadline()))
    assert (first, last) == ((1.0,), (2.0,))
    assert isinstance(odd, InferenceFailed)
    assert (odd.code, odd.detail) == ("not_today", "come back tomorrow")
    assert InferenceFailed("another").code == "inference_failed"


async def test_a_model_that_cancels_itself_fails_its_item_and_goes_on() -> None:
    async def predict(inputs: Sequence[Input]) -> Sequence[Raw]:
        if inputs[0].payload == "odd":
            raise asyncio.CancelledError
        return length_of(inputs)

    async with awaiting(predict) as batcher:
        (odd,) = raws(await batcher.compute([one_input("odd")], deadline()))
        assert isinstance(odd, InferenceFailed)
        assert raws(await batcher.compute([one_input("a")], deadline())) == [(1.0,)]


async def test_it_hangs_when_nothing_ends_and_not_when_one_is_slow() -> None:
    elsewhere, clock = Elsewhere(), Clock()
    async with awaiting(elsewhere, clock=clock) as batcher:
        slow = asked(batcher, ["slow"])
        await elsewhere.entered.wait()
        for _ in range(3):
            clock.moved += 100.0
            elsewhere.let_go("a")
            await batcher.compute([one_input("a")], clock() + SOON)
            assert not batcher.hung
        clock.moved += 200.0
        assert batcher.hung
        elsewhere.let_go("slow")
        await slow


@pytest.mark.parametrize("timeout", [0.0, 0.01])
async def test_closing_ends_what_is_awaited(timeout: float) -> None:
    elsewhere = Elsewhere()
    async with awaiting(elsewhere) as batcher:
        caller = asked(batcher, ["long"])
        await elsewhere.entered.wait()
        await batcher.close(timeout)
        assert elsewhere.stopped == ["long"]
        (outcome,) = raws(await caller)
        assert isinstance(outcome, ShuttingDown)
