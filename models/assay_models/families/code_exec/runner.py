"""The runner of one program against its tests, isolated from the machine.

It is a program of its own, which imports only the standard library: `python -c START` reads it from
standard input, then the program with its limits, and last the tests. It writes one line for each
test: its outcome, its CPU seconds, the number of the exception that ended it, and the digest of its
output if it was given an input (`pass 0.012 0 -`); or `vacuous`; or a line that says what is broken
(`broken mounts: Operation not permitted`). There are five kinds of processes:

- the *launcher* enters new namespaces and waits;
- the *supervisor*, process 1 in there, removes all of the file system but Python's own files,
  starts the host, and only then reads the tests;
- the *host*, process 1 of a process namespace in there, starts a candidate for each test and kills
  what is left of it. It has never held a test, so that no candidate finds one in its memory;
- the *candidate* drops every privilege and runs the program. It answers questions, or it gets an
  input and writes an output;
- the *judge*, one for each test, drops every privilege and runs the test, which asks the candidate.

No line of the program runs in another process than the candidate. The verdict is the judge's, or a
digest of the output that is compared outside.
"""

import _socket
import marshal
import os
import select
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:  # they run in front of this file, in the same module
    from assay_models.families.code_exec.candidate import (
        DONE,
        END,
        ERROR,
        FAIL,
        LEFT,
        MEMORY,
        SEND_FILES,
        SEND_PROCESS,
        TASK,
        UNIX,
        Host,
    )
    from assay_models.families.code_exec.exchange import Exchange, cpu_of_children
    from assay_models.families.code_exec.isolation import (
        ADOPT_ORPHANS,
        DETACH,
        DIE_WITH_PARENT,
        JUDGE_UID,
        NEW_PROCESSES,
        PRELOADED_MODULES,
        SCRATCH,
        SIGKILL,
        SIGXCPU,
        Request,
        SandboxBroken,
        call_libc,
        drop_privileges,
        enter_namespaces,
        mount_tmpfs,
        restrict_files,
        step,
    )
    from assay_models.families.code_exec.judge import (
        ERRED,
        EXHAUSTED,
        FAILED,
        LOST,
        PASSED,
        QUIT,
        UNISOLATED,
        verdict,
    )
    from assay_models.families.code_exec.wire import Channel

Result = tuple[str, float, int, str]
"""An outcome, the CPU seconds of the test with all processes that it started, the number of the
exception that ended it, and the digest of its output, or `-`."""

TICK_SECONDS = 0.05
IDLE_SHARE = 0.02
# A second in which neither judge nor candidate computes counts as half a second of computing.
IDLE_WEIGHT = 0.5
PASS_CREDENTIALS, SEQUENCED = 16, 5  # SO_PASSCRED, SOCK_SEQPACKET
STARTED = b"s"


class End(NamedTuple):
    """The end of a candidate: whether it began, its exception's number, its exit code, its time."""

    has_begun: bool
    exception: int
    code: int
    seconds: float


def main() -> NoReturn:
    """Launch: read the request, start the supervisor in new namespaces, wait."""
    request = read_frame(0)
    report = os.dup(1)
    request["root"] = os.geteuid() == 0
    try:
        with step("process"):
            call_libc("prctl", DIE_WITH_PARENT, SIGKILL)
        if request["isolated"]:
            enter_namespaces(request["root"])
        with step("process"):
            supervisor = os.fork()
        if supervisor:
            os.waitpid(supervisor, 0)
        else:
            os.write(report, Supervisor(request).report().encode())
    except SandboxBroken as error:
        os.write(report, f"broken {error}\n".encode())
    os._exit(0)


class Supervisor:
    """Process 1 of the sandbox: it has each test run by a judge, and reads off the outcome."""

    def __init__(self, request: "Request") -> None:
        self._request = request
        self._isolated = bool(request["isolated"])
        with step("process"):
            call_libc("prctl", DIE_WITH_PARENT, SIGKILL)
            call_libc("prctl", ADOPT_ORPHANS, 1)
            self._source = os.dup(0)
            members, events = request["group"] or (None, "/proc/vmstat")
            self._kills = os.open(events, os.O_RDONLY)
            self._members = None if members is None else os.open(members, os.O_WRONLY)
            nothing = os.open("/dev/null", os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nothing, standard)
        for name in PRELOADED_MODULES:
            __import__(name)
        if self._isolated:
            if os.getpid() != 1:  # it is about to kill all processes that it can see
                raise SandboxBroken("namespaces: the supervisor is not the first of its processes")
            with step("mounts"):
                restrict_files(request["readable"])
        self._control = self._start_host()
        self._tests = read_frame(self._source)

    def report(self) -> str:
        """Run all tests, then the program with each input, and return the report.

        Runs that no time is left for are skipped.
        """
        tests, inputs = self._tests["tests"], self._tests["inputs"]
        if self._tests["vacuous"] and all(self._is_vacuous(test) for test in tests):
            return "vacuous\n"
        each, left = self._request["cpu_seconds"], float(self._request["total_cpu_seconds"])
        lines = []
        for text, is_input in [(test, False) for test in tests] + [(line, True) for line in inputs]:
            limit = min(each, int(left) + 1)
            run = self._run_input if is_input else self._run_test
            result, used = run(text, limit) if left > 0 else (("skipped", 0.0, 0, "-"), 0.0)
            outcome, seconds, exception, digest = result
            lines.append(f"{outcome} {seconds:.3f} {exception} {digest}\n")
            left -= used
        return "".join(lines)

    def _start_host(self) -> "_socket.socket":
        """Start the host in a process namespace of its own, and return the socket to it."""
        with step("process"):
            control, other = _socket.socketpair(UNIX, SEQUENCED)
            control.setsockopt(_socket.SOL_SOCKET, PASS_CREDENTIALS, 1)
            starter = os.fork()
        if not starter:
            if self._isolated:
                call_libc("unshare", NEW_PROCESSES)
                if os.fork():
                    os._exit(0)
            else:
                call_libc("prctl", DIE_WITH_PARENT, SIGKILL)
                call_libc("prctl", ADOPT_ORPHANS, 1)
            Host(self._request, other, self._members).serve()
        other.close()
        if self._isolated:
            os.waitpid(starter, 0)
        return control

    def _is_vacuous(self, test: str) -> bool:
        """Return whether a test passes with an empty program."""
        with self._scratch():
            judge = self._start_judge(test, self._request["cpu_seconds"], None)
            judge.wait(self._request["cpu_seconds"], None)
            judge.end()
        return judge.verdict[:1] == bytes([PASSED])
