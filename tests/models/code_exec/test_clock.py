"""The time of a run: computing and idle time count, waiting for a processor does not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from support.sandboxes import wait_until

from assay_models.families.code_exec import trial
from assay_models.families.code_exec.trial import Clock, queued_seconds

LIMIT = 4


class Times:
    """Times as the kernel reports them: the clock's, computing, waiting for a processor."""

    now = computed = 0.0
    queued: float | None = 0.0

    def pass_by(self, *, computed: float = 0.0, queued: float = 0.0, idle: float = 0.0) -> None:
        self.now += computed + queued + idle
        self.computed += computed
        if self.queued is not None:
            self.queued += queued

    def queued_seconds(self, process: int, proc: int) -> float:
        if self.queued is None:
            raise FileNotFoundError
        return self.queued


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    times = Times()
    monkeypatch.setattr(trial, "time", SimpleNamespace(monotonic=lambda: times.now))
    monkeypatch.setattr(trial, "seconds_of", lambda clock: times.computed)
    monkeypatch.setattr(trial, "queued_seconds", times.queued_seconds)
    return times


def new_clock() -> Clock:
    return Clock([1], LIMIT, 0)


def test_computing_a_little_does_not_make_waiting_free(times: Times) -> None:
    clock = new_clock()
    while not clock.tick():
        times.pass_by(computed=0.002, queued=0.001, idle=0.06)
    assert times.computed + clock.idle == pytest.approx(LIMIT, abs=0.1)
    assert times.now < 2 * LIMIT + 1


def test_waiting_for_a_processor_is_not_idle(times: Times) -> None:
    clock = new_clock()
    for _ in range(100):
        times.pass_by(computed=0.01, queued=0.99)
        assert not clock.tick()
    assert clock.idle == pytest.approx(0.0)


def test_a_wait_that_is_known_at_its_end_alone_is_not_idle_afterwards(times: Times) -> None:
    clock = new_clock()
    times.now += 1.0
    assert not clock.tick()
    assert clock.idle == 0.5
    times.queued = 1.0
    assert not clock.tick()
    assert clock.idle == 0.0


def test_computing_of_threads_does_not_make_later_waiting_longer(times: Times) -> None:
    clock = new_clock()
    times.computed = 3.0
    while not clock.tick():
        times.pass_by(idle=0.05)
    assert times.now < 2 * LIMIT


def test_without_the_kernels_word_only_a_process_that_hardly_computes_is_idle(
    times: Times,
) -> None:
    times.queued = None
    clock = new_clock()
    for _ in range(100):
        times.pass_by(computed=0.01, queued=0.05)
        assert not clock.tick()
    assert clock.idle == pytest.approx(0.0)
    while not clock.tick():
        times.pass_by(idle=0.05)
    assert clock.idle > 0.0


@pytest.fixture
def rivals() -> Iterator[list[int]]:
    """Two processes that compute all the time, on one processor."""
    program = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    place = str(min(os.sched_getaffinity(0)))
    rivals = [subprocess.Popen([sys.executable, "-c", program, place]) for _ in range(2)]
    yield [rival.pid for rival in rivals]
    for rival in rivals:
        rival.kill()
        rival.wait()


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the kernel does not say")
async def test_a_process_on_a_busy_processor_is_known_to_wait_for_it(rivals: list[int]) -> None:
    proc = os.open("/proc", os.O_PATH)
    try:
        for rival in rivals:
            await wait_until(lambda: queued_seconds(rival, proc) > 0.05)  # noqa: B023
    finally:
        os.close(proc)
