"""Jobs: bounds on running jobs and on finished ones, in number and in time."""

import asyncio

import pytest

from assay.api.jobs import Jobs
from assay.errors import Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def new_jobs(max_running: int, max_results: int = 9, clock: Clock | None = None) -> Jobs[str]:
    return Jobs(
        max_running=max_running,
        result_seconds=60.0,
        max_results=max_results,
        clock=Clock() if clock is None else clock,
    )


async def wait_for_gate(gate: asyncio.Event) -> str:
    await gate.wait()
    return "done"


async def finish_job(jobs: Jobs[str]) -> str:
    """Start a job, wait until it has finished, and return its id."""
    gate = asyncio.Event()
    gate.set()
    name = jobs.start(wait_for_gate(gate))
    job = jobs.find(name)
    assert job is not None
    await job
    return name


async def test_a_job_is_found_until_its_result_expires() -> None:
    clock, gate = Clock(), asyncio.Event()
    jobs = new_jobs(1, clock=clock)
    name = jobs.start(wait_for_gate(gate))
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


async def test_jobs_beyond_the_maximum_are_refused() -> None:
    gate = asyncio.Event()
    jobs = new_jobs(2)
    names = [jobs.start(wait_for_gate(gate)) for _ in range(2)]
    with pytest.raises(Overloaded, match="2 jobs are running"):
        jobs.start(wait_for_gate(gate))
    gate.set()
    first = jobs.find(names[0])
    second = jobs.find(names[1])
    assert first is not None
    assert second is not None
    assert (await first, await second) == ("done", "done")
    await jobs.close()
    assert jobs.find(jobs.start(wait_for_gate(gate))) is not None


async def test_only_the_latest_results_are_kept() -> None:
    jobs = new_jobs(1, max_results=2)
    names = [await finish_job(jobs) for _ in range(4)]
    assert [jobs.find(name) is not None for name in names] == [False, False, True, True]


async def test_closing_cancels_running_jobs() -> None:
    jobs = new_jobs(2)
    job = jobs.find(jobs.start(wait_for_gate(asyncio.Event())))
    await jobs.close()
    assert job is not None
    assert job.cancelled()


async def test_the_result_that_was_fetched_longest_ago_is_dropped_first() -> None:
    jobs = new_jobs(1, max_results=2)
    names = []
    for _ in range(3):
        names.append(await finish_job(jobs))
        assert jobs.find(names[0]) is not None
    assert [jobs.find(name) is not None for name in names] == [True, False, True]
