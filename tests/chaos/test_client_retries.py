"""Ten thousand calls of one client, and a server that is killed in their middle."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from assay_client import APIConnectionError, AsyncClient, Clock

from .devices import true_score, wait_until_async
from .processes import DeviceGate, Process, serving

pytestmark = pytest.mark.slow

CALLS = 10_000
MIDDLE = 3_000
TIMEOUT_SECONDS = 120.0


class ManyCalls:
    """The calls; the device waits at the one in the middle until the test releases it."""

    def __init__(self, folder: Path) -> None:
        self.gate = DeviceGate(folder / "gate")
        self.texts = [f"item {number}" for number in range(CALLS)]
        self.texts[MIDDLE] = self.gate.text
        self._tasks: list[asyncio.Task[float]] = []

    @property
    def answered(self) -> int:
        return sum(task.done() for task in self._tasks)

    def start(self, client: AsyncClient) -> None:
        self._tasks = [
            asyncio.create_task(client.score_one("scripted", {"text": text})) for text in self.texts
        ]

    async def outcomes(self) -> Sequence[Any]:
        """Release every device that waits, and return the score or the exception of each call."""
        releasing = asyncio.create_task(self._release_devices())
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            releasing.cancel()

    async def _release_devices(self) -> None:
        self.gate.release()
        while True:
            await self.gate.wait_for_device(TIMEOUT_SECONDS)
            self.gate.release()


@pytest.fixture
def calls(tmp_path: Path) -> ManyCalls:
    return ManyCalls(tmp_path)


@asynccontextmanager
async def gathering_client(
    calls: ManyCalls, *processes: Process, **fields: Any
) -> AsyncIterator[AsyncClient]:
    """Start the calls with a client that gathers, and wait for the device in the middle."""
    urls = [f"http://127.0.0.1:{process.port}" for process in processes]
    async with AsyncClient(urls, gather=True, timeout=TIMEOUT_SECONDS, **fields) as client:
        calls.start(client)
        await calls.gate.wait_for_device(TIMEOUT_SECONDS)
        yield client


async def kill(process: Process) -> None:
    process.stop(signal.SIGKILL)
    assert await process.wait_for_exit() == -signal.SIGKILL


async def test_calls_are_retried_when_the_server_is_back(calls: ManyCalls, tmp_path: Path) -> None:
    back = asyncio.Event()

    async def wait_for_the_server(seconds: float) -> None:
        await back.wait()

    clock = Clock(async_sleep=wait_for_the_server)
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(serving(tmp_path))
        await stack.enter_async_context(gathering_client(calls, process, clock=clock))
        assert 0 < calls.answered < CALLS
        await kill(process)
        await stack.enter_async_context(serving(tmp_path, port=process.port))
        back.set()
        assert await calls.outcomes() == [true_score(text) for text in calls.texts]


async def test_without_retries_the_lost_calls_are_connection_errors(
    calls: ManyCalls, tmp_path: Path
) -> None:
    async with serving(tmp_path) as process, gathering_client(calls, process, max_retries=0):
        await kill(process)
        outcomes = await calls.outcomes()
    lost = [isinstance(outcome, APIConnectionError) for outcome in outcomes]
    for text, outcome, is_lost in zip(calls.texts, outcomes, lost, strict=True):
        assert is_lost or outcome == true_score(text)
    assert lost[MIDDLE]
    assert 0 < sum(lost) < CALLS


async def test_with_a_second_server_every_call_is_answered(
    calls: ManyCalls, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        folders = [tmp_path / "first", tmp_path / "second"]
        both = [await stack.enter_async_context(serving(folder)) for folder in folders]
        await stack.enter_async_context(gathering_client(calls, *both))
        stuck: list[Process] = []

        async def one_is_stuck() -> bool:
            """Return whether one server has queued tokens and the other has none."""
            stuck[:] = [process for process in both if await process.queued_tokens()]
            return len(stuck) == 1

        await wait_until_async(one_is_stuck, TIMEOUT_SECONDS)
        assert 0 < calls.answered < CALLS
        await kill(stuck[0])
        assert await calls.outcomes() == [true_score(text) for text in calls.texts]
