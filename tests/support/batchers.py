"""Batchers for tests, and the executors and clocks that they use."""

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
from support.doubles import Gate, device_thread, new_metrics, text_input

LIMITS = BatchLimits(max_batch_tokens=64, max_batch_size=8, max_queue_tokens=1000)
TIMEOUT_SECONDS = 30.0


class CountingExecutor(ThreadPoolExecutor):
    """A device thread that counts the calls submitted to it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.submitted = 0

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        self.submitted += 1
        return super().submit(*arguments, **named)


class AdjustableClock:
    """The monotonic clock plus an offset that the test sets."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.offset


@asynccontextmanager
async def running_batcher(
    predict: Predict,
    limits: BatchLimits = LIMITS,
    *,
    metrics: Metrics | None = None,
    executor: ThreadPoolExecutor | None = None,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> AsyncIterator[DynamicBatcher]:
    """Yield a started batcher and close it afterwards."""
    with executor or device_thread() as thread:
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
            await batcher.close(TIMEOUT_SECONDS)


def deadline(seconds: float = TIMEOUT_SECONDS) -> float:
    """Return a deadline that many seconds from now."""
    return time.monotonic() + seconds


def raws(outcomes: Sequence[Outcome]) -> list[object]:
    return [outcome.value for outcome in outcomes]


async def wait_until_entered(gate: Gate) -> None:
    """Wait until the device computes a batch behind the gate."""
    assert await asyncio.to_thread(gate.entered.wait, TIMEOUT_SECONDS)


@asynccontextmanager
async def busy_batcher(
    limits: BatchLimits = LIMITS, metrics: Metrics | None = None, **options: Any
) -> AsyncIterator[tuple[DynamicBatcher, Gate, asyncio.Task[list[Outcome]]]]:
    """Yield a batcher whose device computes the input `first` until the gate opens."""
    gate = Gate()
    async with AsyncExitStack() as stack:
        batcher = await stack.enter_async_context(
            running_batcher(gate, limits, metrics=metrics, **options)
        )
        stack.callback(gate.open.set)
        first = asyncio.create_task(batcher.compute([text_input("first")], deadline()))
        await wait_until_entered(gate)
        yield batcher, gate, first
        gate.open.set()
        await asyncio.wait({first})


def start_compute(
    batcher: DynamicBatcher, names: Sequence[str], lane: Lane = "training", tokens: int = 1
) -> asyncio.Task[list[Outcome]]:
    """Start a call to `compute`; it is admitted in the next iteration of the event loop."""
    inputs = [text_input(name, tokens) for name in names]
    return asyncio.create_task(batcher.compute(inputs, deadline(), lane))


async def run_event_loop(count: int = 5) -> None:
    """Run `count` iterations of the event loop, enough for all work that is ready."""
    for _ in range(count):
        await asyncio.sleep(0)
