"""Jobs: bounds on running jobs and on finished ones, in number and in time."""

import asyncio

import pytest

from assay.api.jobs import JobLimits, Jobs
from assay.errors import Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def new_jobs(
    max_running: int,
    max_results: int = 9,
    clock: Clock | None = None,
    *,
    max_bytes: int = 1000,
    idle_seconds: float = 60.0,
) -> Jobs[str]:
    limits = JobLimits(
        max_running=max_running,
        max_bytes=max_bytes,
        idle_seconds=idle_seconds,
        result_seconds=60.0,
        max_results=max_results,
    )
    return Jobs(limits, Clock() if clock is None else clock)


def start(jobs: Jobs[str], gate: asyncio.Event, owner: str = "a", size: int = 1) -> str:
    return jobs.start(wait_for_gate(gate), owner=owner, size=size)


async def wait_for_gate(gate: asyncio.Event) -> str:
    await gate.wait()
    return "done"


async def finish_job(jobs: Jobs[str]) -> str:
    """Start a job, wait until it has finished, and return its id."""
    gate = asyncio.Event()
    gate.set()
    name = start(jobs, gate)
    job = jobs.find(name, "a")
    assert job is not None
    await job
    return name


async def test_a_job_is_found_until_its_result_expires() -> None:
    clock, gate = Clock(), asyncio.Event()
    jobs = new_jobs(2, clock=clock)
    name = start(jobs, gate)
    job = jobs.find(name, "a")
    assert job is not None
    assert not job.done()
    gate.set()
    assert await job == "done"
    clock.now = 59.0
    assert jobs.find(name, "a") is job
    clock.now = 61.0
    assert jobs.find(name, "a") is None
    assert jobs.find("never started", "a") is None


async def test_jobs_beyond_the_maximum_are_refused() -> None:
    gate = asyncio.Event()
    jobs = new_jobs(4)
    names = [start(jobs, gate) for _ in range(2)]
    with pytest.raises(Overloaded, match="2 jobs of this key are running"):
        start(jobs, gate)
    gate.set()
    first = jobs.find(names[0], "a")
    second = jobs.find(names[1], "a")
    assert first is not None
    assert second is not None
    assert (await first, await second) == ("done", "done")
    await jobs.close()
    assert jobs.find(start(jobs, gate), "a") is not None


async def test_only_the_latest_results_are_kept() -> None:
    jobs = new_jobs(2, max_results=2)
    names = [await finish_job(jobs) for _ in range(4)]
    assert [jobs.find(name, "a") is not None for name in names] == [False, False, True, True]


async def test_closing_cancels_running_jobs() -> None:
    jobs = new_jobs(2)
    job = jobs.find(start(jobs, asyncio.Event()), "a")
    await jobs.close()
    assert job is not None
    assert job.cancelled()


async def test_the_result_that_was_fetched_longest_ago_is_dropped_first() -> None:
    jobs = new_jobs(2, max_results=2)
    names = []
    for _ in range(3):
        names.append(await finish_job(jobs))
        assert jobs.find(names[0], "a") is not None
    assert [jobs.find(name, "a") is not None for name in names] == [True, False, True]


async def test_one_owner_has_half_of_the_running_jobs() -> None:
    gate, jobs = asyncio.Event(), new_jobs(3)
    start(jobs, gate, "a")
    with pytest.raises(Overloaded, match="1 jobs of this key are running"):
        start(jobs, gate, "a")
    start(jobs, gate, "b")
    start(jobs, gate, "c")
    with pytest.raises(Overloaded, match="3 jobs are running"):
        start(jobs, gate, "d")
    await jobs.close()


async def test_the_bytes_of_running_jobs_are_bounded_in_all_and_for_one_owner() -> None:
    gate, jobs = asyncio.Event(), new_jobs(100, max_bytes=1000)
    name = start(jobs, gate, "a", size=500)
    with pytest.raises(Overloaded, match="jobs of 500 bytes of this key are running, and 1 more"):
        start(jobs, gate, "a", size=1)
    start(jobs, gate, "b", size=400)
    with pytest.raises(Overloaded, match="jobs of 900 bytes are running, and 101 more"):
        start(jobs, gate, "c", size=101)
    job = jobs.find(name, "a")
    gate.set()
    assert job is not None
    assert await job == "done"
    assert start(jobs, gate, "a", size=500), "a finished job holds no bytes"
    await jobs.close()


async def test_another_owner_does_not_find_a_job() -> None:
    jobs = new_jobs(2)
    name = await finish_job(jobs)
    assert jobs.find(name, "b") is None
    assert jobs.find(name, "a") is not None


async def test_a_running_job_that_is_not_asked_for_ends() -> None:
    jobs = new_jobs(2, idle_seconds=0.001)
    ended = asyncio.Event()

    async def work() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    name = jobs.start(work(), owner="a", size=500)
    await asyncio.wait_for(ended.wait(), 30)
    await asyncio.sleep(0)
    assert jobs.find(name, "a") is None
    assert start(jobs, asyncio.Event(), size=500), "an ended job holds no bytes"
    await jobs.close()
