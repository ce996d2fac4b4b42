"""The preparation pool: order, deadlines, callers that leave, and the bound in bytes."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import pytest
from support.doubles import new_metrics, value

from assay.errors import (
    DeadlineExceeded,
    Overloaded,
    RequestTooLarge,
    ShuttingDown,
)
from assay.metrics import Metrics
from assay.scoring.preparation_pool import MAX_LONG, MAX_STARTED, PreparationPool
from assay.types import Lane
from assay_models.preemption import preemption_point

LATER = time.monotonic() + 3600


@dataclass
class Steps:
    """Work of several slices that notes each, and waits in the first until the test lets it go."""

    log: list[str]
    name: str
    count: int = 3
    entered: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event | None = None
    error: BaseException | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> str:
        for number in range(self.count):
            self.log.append(f"{self.name}{number}")
            self.entered.set()
            if self.gate is not None:
                assert self.gate.wait(30), "the test never opened the gate"
            try:
                preemption_point()
            except BaseException as error:
                self.error = error
                self.ended.set()
                raise
        return self.name


@dataclass
class Bench:
    """A pool of one thread whose slices end at each preemption point."""

    pool: PreparationPool
    metrics: Metrics
    log: list[str] = field(default_factory=list)

    def run(
        self,
        work: Callable[[], str],
        lane: Lane = "training",
        *,
        size: int = 1,
        deadline: float = LATER,
        spend: Callable[[int, int], None] = lambda tokens, inputs: None,
    ) -> asyncio.Task[str]:
        run = self.pool.run(work, spend=spend, size=size, lane=lane, deadline=deadline)
        return asyncio.ensure_future(run)

    async def occupy(self) -> tuple[Steps, asyncio.Task[str]]:
        """Start a bulk task that holds the only permit until its gate is opened."""
        first = Steps(self.log, "first", gate=threading.Event())
        running = self.run(first, "bulk")
        await asyncio.sleep(0)
        assert await asyncio.to_thread(first.entered.wait, 30)
        return first, running

    def dropped(self, reason: str) -> float:
        return value(self.metrics, "assay_prepare_dropped_total", reason=reason)

    def held(self) -> tuple[float, float]:
        names = ("assay_prepare_bytes", "assay_prepare_requests")
        bytes_held, requests = (value(self.metrics, name) for name in names)
        return bytes_held, requests


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    metrics = new_metrics()
    pool = PreparationPool(
        1, max_bytes=1600, clock=time.monotonic, metrics=metrics, slice_seconds=0.0
    )
    yield Bench(pool, metrics)
    pool.close()


async def test_a_higher_lane_goes_before_the_remaining_slices_of_a_running_task(
    bench: Bench,
) -> None:
    first, running = await bench.occupy()
    others = [
        bench.run(Steps(bench.log, "training", count=1), "training"),
        bench.run(Steps(bench.log, "interactive", count=1), "interactive"),
    ]
    await asyncio.sleep(0)
    assert first.gate is not None
    first.gate.set()
    await asyncio.gather(running, *others)
    assert bench.log == ["first0", "interactive0", "training0", "first1", "first2"]
    assert bench.held() == (0, 0)


async def test_a_small_task_passes_a_large_one_of_its_lane(bench: Bench) -> None:
    first, running = await bench.occupy()
    small = bench.run(Steps(bench.log, "small", count=1), "bulk")
    await asyncio.sleep(0)
    assert first.gate is not None
    first.gate.set()
    await asyncio.gather(running, small)
    assert bench.log == ["first0", "small0", "first1", "first2"]


async def test_a_waiting_task_whose_deadline_passes_is_never_run(bench: Bench) -> None:
    first, running = await bench.occupy()
    with pytest.raises(DeadlineExceeded):
        await bench.run(Steps(bench.log, "late"), deadline=time.monotonic() + 0.01)
    assert first.gate is not None
    first.gate.set()
    await running
    assert not [entry for entry in bench.log if entry.startswith("late")]
    assert (bench.dropped("expired"), bench.held()) == (1, (0, 0))


async def test_a_running_task_ends_at_the_first_preemption_point_after_its_deadline(
    bench: Bench,
) -> None:
    work = Steps(bench.log, "late", gate=threading.Event())
    with pytest.raises(DeadlineExceeded):  # while it still runs
        await bench.run(work, deadline=time.monotonic() + 0.05)
    assert work.gate is not None
    work.gate.set()
    await asyncio.gather(bench.run(Steps(bench.log, "next", count=1)))
    assert bench.log == ["late0", "next0"]
    assert (bench.dropped("expired"), bench.held()) == (1, (0, 0))
    assert not isinstance(work.error, Exception), "no family's handler catches it"


async def test_the_pool_is_empty_after_the_callers_leave(bench: Bench) -> None:
    first, running = await bench.occupy()
    waiting = bench.run(Steps(bench.log, "waiting"), size=7)
    await asyncio.sleep(0)
    assert bench.held() == (8, 2)
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert bench.held() == (1, 1), "what runs holds its bytes until it ends"
    assert first.gate is not None
    first.gate.set()
    await bench.run(Steps(bench.log, "next", count=1))
    assert bench.log == ["first0", "next0"]
    assert (bench.dropped("abandoned"), bench.held()) == (2, (0, 0))


async def test_a_paused_task_whose_caller_leaves_ends_at_once(bench: Bench) -> None:
    first, running = await bench.occupy()
    second = Steps(bench.log, "second", gate=threading.Event())
    other = bench.run(second, "interactive")
    await asyncio.sleep(0)
    assert first.gate is not None
    first.gate.set()
    assert await asyncio.to_thread(second.entered.wait, 30), "the first one is paused"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await asyncio.to_thread(first.ended.wait, 30), "it needs no permit to end"
    assert second.gate is not None
    second.gate.set()
    assert await other == "second"
    assert bench.log == ["first0", "second0", "second1", "second2"]


async def test_bytes_beyond_the_bound_are_refused_and_interactive_ones_find_room(
    bench: Bench,
) -> None:
    first, running = await bench.occupy()
    training = bench.run(Steps(bench.log, "t", count=1), "training", size=1499)
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:  # a sixteenth is kept from training
        await bench.run(Steps(bench.log, "refused"), "training", size=1)
    assert (caught.value.status, caught.value.retry_after) == (429, 1.0)
    interactive = bench.run(Steps(bench.log, "i", count=1), "interactive", size=100)
    await asyncio.sleep(0)
    assert bench.held() == (1600, 3)
    with pytest.raises(Overloaded):
        await bench.run(Steps(bench.log, "refused"), "interactive", size=1)
    with pytest.raises(RequestTooLarge):
        await bench.run(Steps(bench.log, "refused"), "bulk", size=1201)
    assert first.gate is not None
    first.gate.set()
    await asyncio.gather(running, training, interactive)
    assert (bench.dropped("overloaded"), bench.held()) == (2, (0, 0))
    assert not [entry for entry in bench.log if entry.startswith("refused")]


class Passage:
    """An item's text, which a weak reference can point to."""

    def __len__(self) -> int:
        return 1


def length_of(passage: Passage) -> str:
    return str(len(passage))


async def test_a_dropped_task_lets_go_of_its_items_while_others_run(bench: Bench) -> None:
    first, running = await bench.occupy()
    passages = [Passage() for _ in range(20)]
    alive = [weakref.ref(passage) for passage in passages]
    waiting = [bench.run(partial(length_of, passage)) for passage in passages]
    kept = bench.run(Steps(bench.log, "kept", count=1), "bulk")
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(0)
    del passages, waiting, task
    gc.collect()
    assert not [passage for passage in alive if passage() is not None]
    assert first.gate is not None
    first.gate.set()
    await asyncio.gather(running, kept)
    assert bench.held() == (0, 0)


@dataclass
class Flood:
    """Long tasks that hold every place of their lane, and end once a short one has."""

    log: list[str] = field(default_factory=list)
    full: threading.Event = field(default_factory=threading.Event)
    passed: threading.Event = field(default_factory=threading.Event)

    def long(self) -> str:
        self.log.append("begin")
        if self.log.count("begin") == MAX_STARTED:
            self.full.set()
        for _ in range(2000):
            preemption_point()
            if self.passed.is_set():
                break
        self.log.append("long")
        return "long"

    def short(self) -> str:
        self.log.append("short")
        self.passed.set()
        return "short"


async def test_a_short_task_passes_more_long_ones_than_may_start() -> None:
    ticks, metrics, flood = count(), new_metrics(), Flood()
    pool = PreparationPool(
        1, max_bytes=1600, clock=lambda: next(ticks) / 1000, metrics=metrics, slice_seconds=0.0
    )
    bench = Bench(pool, metrics)
    tasks = [bench.run(flood.long, deadline=10**6) for _ in range(MAX_STARTED + 16)]
    await asyncio.sleep(0)
    assert await asyncio.to_thread(flood.full.wait, 60)
    assert await bench.run(flood.short, deadline=10**6) == "short"
    assert await asyncio.gather(*tasks) == ["long"] * len(tasks)
    pool.close()
    assert flood.log.index("short") < flood.log.index("long")
    restarts = flood.log.count("begin") - len(tasks)
    assert 0 < restarts <= len(tasks) - MAX_LONG, "each begins again once at most"
    assert bench.held() == (0, 0)
    waited = "assay_prepare_wait_seconds_count"
    assert value(metrics, waited, lane="training") == len(tasks) + 1


async def test_work_that_needs_too_much_is_stopped_at_its_preemption_point(bench: Bench) -> None:
    spent: list[tuple[int, int]] = []

    def spend(tokens: int, inputs: int) -> None:
        spent.append((tokens, inputs))
        if len(spent) == 2:
            raise RequestTooLarge("too much")

    def work() -> str:
        for _ in range(9):
            preemption_point(5, 1)
        return "never"

    with pytest.raises(RequestTooLarge, match="too much"):
        await bench.run(work, spend=spend)
    assert (spent, bench.dropped("too_large")) == ([(5, 1), (5, 1)], 1)


async def test_an_error_of_the_work_reaches_the_caller(bench: Bench) -> None:
    def work() -> str:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        await bench.run(work)
    assert await bench.run(Steps(bench.log, "next", count=1)) == "next"


async def test_closing_drops_waiting_and_paused_tasks(bench: Bench) -> None:
    first, running = await bench.occupy()
    second = Steps(bench.log, "second", gate=threading.Event())
    other, waiting = bench.run(second, "interactive"), bench.run(Steps(bench.log, "w"), "bulk")
    await asyncio.sleep(0)
    assert first.gate is not None
    assert second.gate is not None
    first.gate.set()
    assert await asyncio.to_thread(second.entered.wait, 30)
    bench.pool.close()
    second.gate.set()
    errors = await asyncio.gather(running, other, waiting, return_exceptions=True)
    assert [type(error) for error in errors] == [ShuttingDown] * 3
    assert bench.log == ["first0", "second0"]
