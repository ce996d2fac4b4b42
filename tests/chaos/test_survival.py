"""Ten thousand calls through one client, and a server that is killed in their middle."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from assay_client import APIConnectionError, AsyncClient, Clock

from .devices import eventually, truth
from .processes import Meeting, Process, serving

COUNT = 10_000
MIDDLE = 3_000
MINUTES = 300.0


class Crowd:
    """The calls; the device stops at the one in the middle until the test lets it go on."""

    def __init__(self, folder: Path) -> None:
        self.meeting = Meeting(folder / "meeting")
        self.texts = [f"item {number}" for number in range(COUNT)]
        self.texts[MIDDLE] = self.meeting.text
        self._asked: list[asyncio.Task[float]] = []

    @property
    def answered(self) -> int:
        return sum(task.done() for task in self._asked)

    def ask(self, client: AsyncClient) -> None:
        self._asked = [
            asyncio.create_task(client.score_one("scripted", {"text": text})) for text in self.texts
        ]

    async def outcomes(self) -> Sequence[Any]:
        async with asyncio.timeout(MINUTES):
            return await asyncio.gather(*self._asked, return_exceptions=True)


@pytest.fixture
def crowd(tmp_path: Path) -> Crowd:
    return Crowd(tmp_path)


@asynccontextmanager
async def asking(crowd: Crowd, *processes: Process, **fields: Any) -> AsyncIterator[AsyncClient]:
    """A client that gathers, and the crowd that asks it; the device stops in the middle."""
    urls = [f"http://127.0.0.1:{process.port}" for process in processes]
    async with AsyncClient(urls, gather=True, timeout=MINUTES, **fields) as client:
        crowd.ask(client)
        await crowd.meeting.met(MINUTES)
        yield client


async def killed(process: Process) -> None:
    process.stop(signal.SIGKILL)
    assert await process.ended() == -signal.SIGKILL


async def test_a_server_that_comes_back_is_asked_again(crowd: Crowd, tmp_path: Path) -> None:
    back = asyncio.Event()

    async def wait_for_the_server(seconds: float) -> None:
        await back.wait()

    clock = Clock(async_sleep=wait_for_the_server)
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(serving(tmp_path))
        await stack.enter_async_context(asking(crowd, process, clock=clock))
        assert 0 < crowd.answered < COUNT
        await killed(process)
        crowd.meeting.leave()
        await stack.enter_async_context(serving(tmp_path, port=process.port))
        back.set()
        await crowd.meeting.met(MINUTES)
        crowd.meeting.leave()
        assert await crowd.outcomes() == [truth(text) for text in crowd.texts]


async def test_who_does_not_wait_for_it_gets_his_error(crowd: Crowd, tmp_path: Path) -> None:
    async with serving(tmp_path) as process, asking(crowd, process, max_retries=0):
        await killed(process)
        crowd.meeting.leave()
        outcomes = await crowd.outcomes()
    lost = [isinstance(outcome, APIConnectionError) for outcome in outcomes]
    for text, outcome, is_lost in zip(crowd.texts, outcomes, lost, strict=True):
        assert is_lost or outcome == truth(text)
    assert lost[MIDDLE]
    assert 0 < sum(lost) < COUNT


async def test_with_a_second_server_nobody_is_lost(crowd: Crowd, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        folders = [tmp_path / "first", tmp_path / "second"]
        both = [await stack.enter_async_context(serving(folder)) for folder in folders]
        await stack.enter_async_context(asking(crowd, *both))
        stuck: list[Process] = []

        async def one_is_stuck() -> bool:
            """The other one has answered all that it was asked."""
            stuck[:] = [process for process in both if await process.queued()]
            return len(stuck) == 1

        await eventually(one_is_stuck, MINUTES)
        assert 0 < crowd.answered < COUNT
        await killed(stuck[0])
        crowd.meeting.leave()
        await crowd.meeting.met(MINUTES)
        crowd.meeting.leave()
        assert await crowd.outcomes() == [truth(text) for text in crowd.texts]
