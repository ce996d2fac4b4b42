"""Jobs: work begun now and fetched later, bounded in number and in time."""

import asyncio

import pytest

from assay.api.dialects._jobs import Jobs
from assay.errors import Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def waits(gate: asyncio.Event) -> str:
    await gate.wait()
    return "done"


async def test_a_job_is_found_while_it_runs_and_for_a_while_after() -> None:
    clock, gate = Clock(), asyncio.Event()
    jobs = Jobs[str](1, 60.0, 9, clock)
    name = jobs.start(waits(gate))
    job = jobs.find(name)
    assert job is not None
    assert not job.done()
    gate.set()
    assert await job == "done"
    clock.now = 59.0
    assert jobs.find(name) is job
    clock.now = 61.0
    assert jobs.find(name) is None
    assert jobs.find("never started") is None


async def test_so_many_run_at_a_time_and_no_more() -> None:
    gate = asyncio.Event()
    jobs = Jobs[str](2, 60.0, 9, Clock())
    names = [jobs.start(waits(gate)) for _ in range(2)]
    with pytest.raises(Overloaded, match="2 jobs are running"):
        jobs.start(waits(gate))
    gate.set()
    first = jobs.find(names[0])
    second = jobs.find(names[1])
    assert first is not None
    assert second is not None
    assert await asyncio.gather(first, second) == ["done", "done"]
    await jobs.close()
    assert jobs.find(jobs.start(waits(gate))) is not None


async def test_of_many_outcomes_the_latest_are_kept() -> None:
    gate = asyncio.Event()
    gate.set()
    jobs = Jobs[str](1, 60.0, 2, Clock())
    names = []
    for _ in range(4):
        names.append(jobs.start(waits(gate)))
        job = jobs.find(names[-1])
        assert job is not None
        await job
    assert [jobs.find(name) is not None for name in names] == [False, False, True, True]


async def test_what_runs_at_the_end_is_stopped() -> None:
    jobs = Jobs[str](2, 60.0, 9, Clock())
    job = jobs.find(jobs.start(waits(asyncio.Event())))
    await jobs.close()
    assert job is not None
    assert job.cancelled()
