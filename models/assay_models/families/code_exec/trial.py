"""One run of a program: the test, the process of its judge, the time that it takes, and its end.

This file is executed in the sandbox, in front of the runner, and imports only the standard library.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # they run in front of this file, in the same module
    from assay_models.families.code_exec.host import (
        DONE,
        ERROR,
        FAIL,
        LEFT,
        MEMORY,
        close_all_but,
    )
    from assay_models.families.code_exec.isolation import (
        JUDGE_UID,
        SIGKILL,
        Request,
        SandboxBroken,
        drop_privileges,
        step,
    )
    from assay_models.families.code_exec.shapes import LOST, verdict
    from assay_models.families.code_exec.wire import Channel

# A second in which neither judge nor candidate computes, nor waits for a processor, counts as half
# a second of computing.
IDLE_WEIGHT = 0.5
# Where the kernel does not say how long they wait for a processor, they are taken to wait for it
# unless they compute for less than that share of such a window.
WINDOW_SECONDS, IDLE_SHARE = 0.5, 0.01
STARTED = b"s"
# By the number of the verdict; the one between them, `LOST`, depends on the candidate's end.
OUTCOMES_OF_JUDGES = ("pass", "fail", "error", "memory", "exit", "exit", "unisolated")


class Test(NamedTuple):
    """A test, or an input, the names of the functions that it may be about, and its helpers."""

    text: str
    is_input: bool
    entry_points: tuple[str, ...]
    helpers: str = ""


class End(NamedTuple):
    """The end of a candidate: whether it began, its exception's number, its exit code, its time."""

    has_begun: bool
    exception: int
    code: int
    seconds: float


class JudgeProcess:
    """The process of a judge, as its supervisor sees it."""

    def __init__(self, request: Request, test: Test, limit: int, socket: int | None) -> None:
        # Before its verdict the judge writes a secret, so that nothing else is taken for it.
        self.answer, self._secret = b"", os.urandom(16)
        with step("process"):
            self.pipe, answer = os.pipe()
            self.process = os.fork()
        if not self.process:
            os.setsid()
            close_all_but({answer, socket or 0})
            drop_privileges(request, limit, JUDGE_UID)
            os.write(answer, STARTED)
            channel = None if socket is None else Channel(socket)
            os.write(
                answer, self._secret + verdict(test.text, channel, test.entry_points, test.helpers)
            )
            os._exit(0)
        os.close(answer)

    @property
    def has_verdict(self) -> bool:
        """Whether the judge has come to a verdict of its own."""
        return self._is_done and self.verdict[0] != LOST

    @property
    def verdict(self) -> bytes:
        """The number of the judge's verdict, and that of the exception."""
        return self.answer.partition(self._secret)[2]

    @property
    def _is_done(self) -> bool:
        return len(self.verdict) > 1

    def read(self) -> bool:
        """Read a part of the answer; return whether there is no more."""
        part = os.read(self.pipe, 64)
        self.answer += part
        return not part or self._is_done

    def outcome(self, end: End, code: int) -> tuple[str, int]:
        """Return the outcome of a test and the number of its exception.

        A candidate that has ended by itself has passed nothing.
        """
        if self.has_verdict and end.code in (LEFT, -SIGKILL):
            kind, exception = self.verdict[:2]
            return OUTCOMES_OF_JUDGES[kind], exception
        return ("crash" if end.code < 0 or (not self._is_done and code < 0) else "exit"), 0

    def end(self) -> int:
        """Kill the process, with what it has started, and return its exit code."""
        for kill in (os.kill, os.killpg):
            with suppress(ProcessLookupError, PermissionError):
                kill(self.process, SIGKILL)
        os.close(self.pipe)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


class Clock:
    """The seconds that a run takes: computing, and idle time at its weight.

    `proc` is the machine's own `/proc`.
    """

    def __init__(self, processes: list[int], limit: int, proc: int) -> None:
        self.is_over, self.idle = False, 0.0
        self._limit, self._proc, self._processes = limit, proc, processes
        self._clocks = [~process << 3 | 2 for process in processes]  # CPUCLOCK_SCHED of each
        self._start = self._since = time.monotonic()
        self._busy, self._presumed = 0.0, 0.0
        self._queued = dict.fromkeys(processes, 0.0)

    def tick(self) -> bool:
        """Read the clocks; return whether the run has taken as long as it may."""
        busy, now = sum(map(seconds_of, self._clocks)), time.monotonic()
        self._presume(busy, now)
        for process in self._processes:
            with suppress(OSError):  # it has ended, or the kernel does not say
                seconds = queued_seconds(process, self._proc)
                self._queued[process] = max(seconds, self._queued[process])
        # A wait is known at its end only, so that idle time may become less.
        queued = sum(self._queued.values()) or self._presumed
        self.idle = IDLE_WEIGHT * max(0.0, now - self._start - busy - queued)
        self.is_over = busy + self.idle >= self._limit
        return self.is_over

    def _presume(self, busy: float, now: float) -> None:
        """Add up the time that was not spent computing in windows in which there was computing."""
        passed, computed = now - self._since, busy - self._busy
        if computed >= IDLE_SHARE * passed:
            self._presumed += max(0.0, passed - computed)
        elif passed < WINDOW_SECONDS:
            return
        self._busy, self._since = busy, now


def queued_seconds(process: int, proc: int) -> float:
    """Return the longest time that a task of a process has waited for a processor; 0 if unknown.

    The waits of several are not added: a program could make them wait for one another.

    Raises:
        OSError: the process has ended, or the kernel does not say.
    """
    handle = os.pidfd_open(process)
    try:  # its number in the machine's own namespace
        known = read_in(proc, f"self/fdinfo/{handle}")
    finally:
        os.close(handle)
    folder = known.partition(b"\nPid:\t")[2].partition(b"\n")[0].decode() + "/task"
    tasks, longest = os.open(folder, os.O_RDONLY, dir_fd=proc), 0
    try:
        for task in os.listdir(tasks):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                longest = max(longest, int(read_in(tasks, f"{task}/schedstat").split()[1]))
    finally:
        os.close(tasks)
    return longest / 1e9


def read_in(folder: int, path: str) -> bytes:
    """Read a short file in an open folder."""
    file = os.open(path, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


def seconds_of(clock: int) -> float:
    """Return the time of a process's clock; 0 for a process that has ended."""
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0


def check_start(process: str, has_begun: bool, code: int) -> None:
    """Raise `SandboxBroken` if a process has ended with that code before it began."""
    if not has_begun:
        reason = os.strerror(code) if code > 0 else f"signal {-code}"
        raise SandboxBroken(f"{process}: {reason}")


def outcome_of_input(end: End) -> tuple[str, int]:
    """Return the outcome of a run with an input, before the output is compared."""
    if end.code < 0:
        return "crash", 0
    outcomes = {DONE: "pass", ERROR: "error", FAIL: "fail", MEMORY: "memory"}
    return outcomes.get(end.code, "exit"), end.exception
