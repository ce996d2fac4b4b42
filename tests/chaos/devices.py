"""A scripted device, alone behind a batcher or in the scripted model, and checks of a batcher.

After each test a batcher has one outcome for each input, nothing pending, and no task left.
"""

import asyncio
import threading
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.doubles import ScriptedModel, device_thread, new_metrics, text_input, value

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.entry import Outcome
from assay.batching.executor import Predict
from assay.errors import AssayError
from assay.metrics import Metrics
from assay_models.base import Input, Raw

TIMEOUT_SECONDS = 20.0
LIMITS = BatchLimits(max_batch_tokens=64, max_batch_size=8, max_queue_tokens=1000)


def true_score(text: str) -> float:
    """Return the correct score of a text; no two texts of a test share it."""
    return zlib.crc32(text.encode()) / 2**16


async def wait_until(holds: Callable[[], bool], seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until a condition holds that has no event."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(0.005)


async def wait_until_async(
    holds: Callable[[], Awaitable[bool]], seconds: float = TIMEOUT_SECONDS
) -> None:
    """Wait until an asynchronous condition holds."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(0.005)


async def wait_for_event(event: threading.Event) -> None:
    """Wait for an event that another thread sets."""
    assert await asyncio.to_thread(event.wait, TIMEOUT_SECONDS)


@dataclass
class ScriptedDevice:
    """A device that computes `true_score`, fails as its texts say, and records its inputs.

    A text with `poison` in it raises, one with `nan` or `inf` returns that number. While the gate
    is closed, every forward pass waits for it.
    """

    rows: Counter[str] = field(default_factory=Counter)
    forwards: list[list[str]] = field(default_factory=list)
    fault: Callable[[Sequence[str]], None] = lambda texts: None
    gate: threading.Event = field(default_factory=threading.Event, kw_only=True)
    entered: threading.Event = field(default_factory=threading.Event, kw_only=True)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, inputs: Sequence[Input]) -> list[Raw]:
        texts = [row.payload for row in inputs]
        self.forwards.append(texts)
        self.entered.set()
        assert self.gate.wait(TIMEOUT_SECONDS), "the test never opened the gate"
        self.fault(texts)
        if any("poison" in text for text in texts):
            raise RuntimeError("scripted")
        self.rows.update(texts)
        return [(_score(text),) for text in texts]

    def hold(self) -> None:
        """Hold forward passes until `release`."""
        self.entered.clear()
        self.gate.clear()

    def release(self) -> None:
        """Let forward passes continue."""
        self.gate.set()


def _score(text: str) -> float:
    for name in ("nan", "-inf", "inf"):
        if name in text:
            return float(name)
    return true_score(text)


@asynccontextmanager
async def running_batcher(
    predict: Predict,
    limits: BatchLimits = LIMITS,
    *,
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> AsyncIterator[tuple[DynamicBatcher, ThreadPoolExecutor]]:
    """Run a batcher on a device thread of its own; check that the block leaves no task behind."""
    before = asyncio.all_tasks()
    with device_thread() as executor:
        batcher = DynamicBatcher(
            name="m",
            predict=predict,
            thread=executor,
            limits=limits,
            metrics=metrics or new_metrics(),
            clock=clock,
            **options,
        )
        batcher.start()
        try:
            yield batcher, executor
        finally:
            if isinstance(predict, ScriptedDevice):
                predict.release()
            await batcher.close(TIMEOUT_SECONDS)
    assert asyncio.all_tasks() <= before
    assert batcher.pending_tokens == 0


@asynccontextmanager
async def checked_batcher(
    predict: Predict,
    limits: BatchLimits = LIMITS,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[DynamicBatcher]:
    """Run a batcher; check after the block that it still computes and that nothing is pending."""
    metrics = new_metrics()
    async with running_batcher(predict, limits, metrics=metrics, clock=clock) as (batcher, _):
        yield batcher
        async with asyncio.timeout(TIMEOUT_SECONDS):
            assert await compute(batcher, ["and then"], clock) == [(true_score("and then"),)]
        assert batcher.pending_tokens == 0
        assert value(metrics, "assay_queue_tokens", model="m") == 0


async def compute(
    batcher: DynamicBatcher, names: Sequence[str], clock: Callable[[], float] = time.monotonic
) -> list[object]:
    """Return the raws of texts, and the errors of those that failed."""
    inputs = [text_input(name) for name in names]
    return values(await batcher.compute(inputs, clock() + TIMEOUT_SECONDS))


def values(outcomes: Sequence[Outcome]) -> list[object]:
    return [outcome.value for outcome in outcomes]


def is_computed(name: str, result: object) -> bool:
    """Return whether a text was computed; fail if it was and its raw is not the true one."""
    if isinstance(result, AssayError):
        return False
    assert result == (true_score(name),)
    return True


def install_device(monkeypatch: pytest.MonkeyPatch, device: ScriptedDevice) -> ScriptedDevice:
    """Let the scripted model compute on this device."""

    def predict(_: ScriptedModel, inputs: Sequence[Input]) -> list[Raw]:
        return device(inputs)

    monkeypatch.setattr(ScriptedModel, "predict", predict)
    return device


class ManualClock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
