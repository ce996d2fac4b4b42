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

# On a busy machine a process that could run gets more of any such window than that share.
IDLE_WINDOW_SECONDS, IDLE_SHARE = 0.5, 0.01
# A second in which neither judge nor candidate computes counts as half a second of computing.
IDLE_WEIGHT = 0.5
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
    """The seconds that a run takes: computing, and idle time at its weight."""

    def __init__(self, processes: list[int], limit: int) -> None:
        self.is_over, self._limit = False, limit
        self._clocks = [~process << 3 | 2 for process in processes]  # CPUCLOCK_SCHED of each
        self._busy, self._since, self.idle = 0.0, time.monotonic(), 0.0

    def tick(self) -> bool:
        """Read the clocks; return whether the run has taken as long as it may."""
        busy, now = sum(map(seconds_of, self._clocks)), time.monotonic()
        if (passed := now - self._since) >= IDLE_WINDOW_SECONDS:
            if busy - self._busy < IDLE_SHARE * passed:
                self.idle += IDLE_WEIGHT * passed
            self._busy, self._since = busy, now
        self.is_over = busy + self.idle >= self._limit
        return self.is_over


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
