"""Batchers for tests: running ones, busy ones, and the executors and clocks they run on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.entry import Outcome
from assay.batching.executor import Predict
from assay.metrics import Metrics
from assay.types import Lane
from support.doubles import Gate, device, new_metrics, one_input

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
            name="m",
            predict=predict,
            thread=thread,
            limits=limits,
            metrics=metrics or new_metrics(),
            clock=clock,
            **options,
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
