"""A device that follows a script, behind a batcher alone or inside the scripted model, and the law
of a batcher: one outcome for each input, nothing pending, no task left.
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
from support.doubles import ScriptedModel, device, new_metrics, one_input, value

from assay.batching.batcher import BatchLimits, DynamicBatcher
from assay.batching.entry import Outcome
from assay.batching.executor import Predict
from assay.errors import AssayError
from assay.metrics import Metrics
from assay_models.base import Input, Raw

SECONDS = 20.0
LIMITS = BatchLimits(max_batch_tokens=64, max_batch_size=8, max_queue_tokens=1000)


def truth(text: str) -> float:
    """The one right score of a text; no two texts of a test share it."""
    return zlib.crc32(text.encode()) / 2**16


async def until(holds: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait for a state that nothing announces."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(0.005)


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
    """Wait for a state that has to be asked for."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 there is no event to wait for
            await asyncio.sleep(0.005)


async def happened(event: threading.Event) -> None:
    """Wait for what another thread announces."""
    assert await asyncio.to_thread(event.wait, SECONDS)


@dataclass
class Script:
    """A device that computes `truth`, fails as its texts say, and writes down all it was asked.

    A text with `poison` in it raises, one with `nan` or `inf` gives that. While the gate is closed
    every forward pass waits in front of it.
    """

    rows: Counter[str] = field(default_factory=Counter)
    forwards: list[list[str]] = field(default_factory=list)
    fault: Callable[[Sequence[str]], None] = lambda texts: None
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, inputs: Sequence[Input]) -> list[Raw]:
        texts = [one.payload for one in inputs]
        self.forwards.append(texts)
        self.entered.set()
        assert self.gate.wait(SECONDS), "the test never opened the gate"
        self.fault(texts)
        if any("poison" in text for text in texts):
            raise RuntimeError("scripted")
        self.rows.update(texts)
        return [(_number(text),) for text in texts]

    def hold(self) -> None:
        """Let no forward pass end until `release`."""
        self.entered.clear()
        self.gate.clear()

    def release(self) -> None:
        self.gate.set()


def _number(text: str) -> float:
    for name in ("nan", "-inf", "inf"):
        if name in text:
            return float(name)
    return truth(text)


@asynccontextmanager
async def started(
    predict: Predict,
    limits: BatchLimits = LIMITS,
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.monotonic,
    **others: Any,
) -> AsyncIterator[tuple[DynamicBatcher, ThreadPoolExecutor]]:
    """A batcher on a device thread of its own; nothing of it is left after the block."""
    before = asyncio.all_tasks()
    with device() as executor:
        batcher = DynamicBatcher(
            name="m",
            predict=predict,
            thread=executor,
            limits=limits,
            metrics=metrics or new_metrics(),
            clock=clock,
            **others,
        )
        batcher.start()
        try:
            yield batcher, executor
        finally:
            if isinstance(predict, Script):
                predict.release()
            await batcher.close(SECONDS)
    assert asyncio.all_tasks() <= before
    assert batcher.pending_tokens == 0


@asynccontextmanager
async def batching(
    predict: Predict,
    limits: BatchLimits = LIMITS,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[DynamicBatcher]:
    """A batcher that obeys the law when the block ends: it serves again, and nothing pends."""
    metrics = new_metrics()
    async with started(predict, limits, metrics, clock) as (batcher, _):
        yield batcher
        async with asyncio.timeout(SECONDS):
            assert await computed(batcher, ["and then"], clock) == [(truth("and then"),)]
        assert batcher.pending_tokens == 0
        assert value(metrics, "assay_queue_tokens", model="m") == 0


async def computed(
    batcher: DynamicBatcher, names: Sequence[str], clock: Callable[[], float] = time.monotonic
) -> list[object]:
    """The raws of these texts, and errors for those without."""
    outcomes = await batcher.compute([one_input(name) for name in names], clock() + SECONDS)
    return values(outcomes)


def values(outcomes: Sequence[Outcome]) -> list[object]:
    return [outcome.value for outcome in outcomes]


def honest(name: str, found: object) -> bool:
    """Whether this text was computed. If so its raw is the true one, if not there is an error."""
    if isinstance(found, AssayError):
        return False
    assert found == (truth(name),)
    return True


def scripted(monkeypatch: pytest.MonkeyPatch, script: Script) -> Script:
    """Let the scripted model compute by this script."""

    def predict(_: ScriptedModel, inputs: Sequence[Input]) -> list[Raw]:
        return script(inputs)

    monkeypatch.setattr(ScriptedModel, "predict", predict)
    return script


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
