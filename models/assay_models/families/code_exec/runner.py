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

from __future__ import annotations

import _socket
import marshal
import os
import select
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # they run in front of this file, in the same module
    from assay_models.families.code_exec.exchange import Exchange, cpu_of_children
    from assay_models.families.code_exec.host import END, SEND_FILES, TASK, UNIX, Host
    from assay_models.families.code_exec.isolation import (
        ADOPT_ORPHANS,
        DETACH,
        DIE_WITH_PARENT,
        NEW_PROCESSES,
        PRELOADED_MODULES,
        SCRATCH,
        SIGKILL,
        SIGXCPU,
        Request,
        SandboxBroken,
        call_libc,
        enter_namespaces,
        mount_tmpfs,
        restrict_files,
        step,
    )
    from assay_models.families.code_exec.shapes import PASSED
    from assay_models.families.code_exec.trial import (
        Clock,
        End,
        JudgeProcess,
        Test,
        check_start,
        outcome_of_input,
    )

Result = tuple[str, float, int, str]
"""An outcome, the CPU seconds of the test with all processes that it started, the number of the
exception that ended it, and the digest of its output, or `-`."""

TICK_SECONDS = 0.05
MARGIN_BYTES = 1 << 20  # the kernel refuses memory in pieces
PASS_CREDENTIALS, SEQUENCED = 16, 5  # SO_PASSCRED, SOCK_SEQPACKET


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


def read_frame(source: int) -> Any:
    """Read a marshalled value behind its length in eight hexadecimal digits, and nothing more."""
    size = int(read_exactly(source, 8), 16)
    return marshal.loads(read_exactly(source, size))  # noqa: S302 the service wrote it


def read_exactly(source: int, size: int) -> bytes:
    """Read so many bytes; end the process where there are fewer."""
    data = bytearray()
    while len(data) < size:
        data += os.read(source, size - len(data)) or os._exit(1)
    return bytes(data)


class Supervisor:
    """Process 1 of the sandbox: it has each test run by a judge, and reads off the outcome."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._isolated = bool(request["isolated"])
        with step("process"):
            call_libc("prctl", DIE_WITH_PARENT, SIGKILL)
            call_libc("prctl", ADOPT_ORPHANS, 1)
            self._source = os.dup(0)
            # Without a group, the kills are those of the whole machine.
            group = request["group"] or ("/dev/null", "/proc/vmstat", "/dev/null")
            members, kills, peak = group
            self._members = os.open(members, os.O_WRONLY)
            self._kills, self._peak = os.open(kills, os.O_RDONLY), os.open(peak, os.O_RDONLY)
            self._proc = os.open("/proc", os.O_PATH)
            nothing = os.open("/dev/null", os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nothing, standard)
        for name in PRELOADED_MODULES:
            __import__(name)
        if self._isolated:
            if os.getpid() != 1:  # it is about to kill all processes that it can see
                raise SandboxBroken("namespaces: the supervisor is not the first of its processes")
            with step("mounts"):
                restrict_files(request["readable"], request["hidden"])
        self._control = self._start_host()
        self._tests = read_frame(self._source)

    def report(self) -> str:
        """Run all tests, then the program with each input, and return the report.

        Runs that no time is left for are skipped.
        """
        names = tuple(self._tests["entry_points"])
        helpers = self._tests["helpers"]
        tests = [Test(text, False, names, helpers) for text in self._tests["tests"]]
        inputs = [Test(text, True, ()) for text in self._tests["inputs"]]
        if self._tests["vacuous"] and all(self._is_vacuous(test) for test in tests):
            return "vacuous\n"
        each, left = self._request["cpu_seconds"], float(self._request["total_cpu_seconds"])
        lines = []
        for test in tests + inputs:
            limit = min(each, int(left) + 1)
            outcome, seconds, exception, digest = (
                self._run(test, limit) if left > 0 else ("skipped", 0.0, 0, "-")
            )
            lines.append(f"{outcome} {seconds:.3f} {exception} {digest}\n")
            left -= seconds
        return "".join(lines)

    def _start_host(self) -> _socket.socket:
        """Start the host in a process namespace of its own, and return the socket to it."""
        with step("process"):
            control, other = _socket.socketpair(UNIX, SEQUENCED)
            control.setsockopt(_socket.SOL_SOCKET, PASS_CREDENTIALS, 1)
            starter = os.fork()
        if not starter:
            if not self._isolated:
                call_libc("prctl", DIE_WITH_PARENT, SIGKILL)
                call_libc("prctl", ADOPT_ORPHANS, 1)
            else:
                call_libc("unshare", NEW_PROCESSES)
                if os.fork():
                    os._exit(0)
            Host(self._request, other, self._members).serve()
        other.close()
        if self._isolated:
            os.waitpid(starter, 0)
        return control

    def _is_vacuous(self, test: Test) -> bool:
        """Return whether a test passes with an empty program."""
        limit = self._request["cpu_seconds"]
        with self._scratch():
            judge = JudgeProcess(self._request, test, limit, None)
            self._wait(judge, Clock([judge.process], limit, self._proc))
            judge.end()
        return judge.verdict == bytes([PASSED, 0])

    def _run(self, test: Test, limit: int) -> Result:
        """Run the program with a test, or with an input, and return the result."""
        exchange = Exchange(test.text) if test.is_input else None
        kills, before = self._memory_kills(), cpu_of_children()
        with self._scratch(), step("process"):
            judge, candidate = self._start(test, limit, exchange)
            processes = [candidate, *([judge.process] if judge else [])]
            clock = Clock(processes, limit, self._proc)
            end = self._wait(judge, clock)
            with suppress(ProcessLookupError):
                os.kill(candidate, 0 if end else SIGKILL)
            code = judge.end() if judge else 0
            end = end or self._receive_end()
        spent = end.seconds + cpu_of_children() - before + clock.idle
        digest = exchange.digest() if exchange else "-"
        check_start("candidate", end.has_begun, end.code)
        check_start("judge", judge is None or bool(judge.answer), code)
        has_verdict = judge is not None and judge.has_verdict
        if self._is_killed_for_memory(kills, has_verdict, (end.code, code)):
            return "memory", spent, 0, digest
        if clock.is_over or spent >= limit or end.code == -SIGXCPU:
            return "timeout", spent, 0, digest
        outcome, exception = judge.outcome(end, code) if judge else outcome_of_input(end)
        return outcome, spent, exception, digest

    def _start(
        self, test: Test, limit: int, exchange: Exchange | None
    ) -> tuple[JudgeProcess | None, int]:
        """Start the candidate, and its judge if there is a test; return both."""
        judge = None
        if exchange is not None:
            self._send_task(limit, exchange.files, is_input=True)
        else:
            ours, theirs = _socket.socketpair()
            self._send_task(limit, [theirs.fileno()], is_input=False)
            judge = JudgeProcess(self._request, test, limit, ours.fileno())
            ours.close()
            theirs.close()
        data, ancillary, _, _ = self._control.recvmsg(4, 256)
        if not data:
            raise SandboxBroken("process: the host has ended")
        (candidate,) = struct.unpack("=i", data)
        if self._isolated:
            # The kernel translates the number that the process has in its own namespace.
            ((_, _, identity),) = ancillary
            (candidate, _, _) = struct.unpack("=iII", identity)
        return judge, candidate

    def _send_task(self, limit: int, files: list[int], *, is_input: bool) -> None:
        ancillary = [(_socket.SOL_SOCKET, SEND_FILES, array("i", files).tobytes())]
        self._control.sendmsg([TASK.pack(is_input, limit)], ancillary)

    def _wait(self, judge: JudgeProcess | None, clock: Clock) -> End | None:
        """Wait for the judge's answer; without a judge, for the candidate's end.

        It ends early when the time is used up, or memory. Returns the candidate's end, if that was
        first.
        """
        kills, end = self._memory_kills(), None
        control = self._control.fileno()
        waiting = select.poll()
        waiting.register(control, select.POLLIN)
        if judge:
            waiting.register(judge.pipe, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in waiting.poll(1000 * TICK_SECONDS)]
            if control in ready:
                end = self._receive_end()
                waiting.unregister(control)
                if judge is None:
                    return end
            if judge and judge.pipe in ready and judge.read():
                return end
            if not ready and clock.tick():
                return end
            if not ready and self._request["group"] and self._memory_kills() != kills:
                return end

    def _receive_end(self) -> End:
        """Wait for the host's report of a candidate's end."""
        data = self._control.recv(END.size)
        if not data:
            raise SandboxBroken("process: the host has ended")
        has_begun, exception, status, seconds = END.unpack(data)
        return End(has_begun, exception, os.waitstatus_to_exitcode(status), seconds)

    @contextmanager
    def _scratch(self) -> Iterator[None]:
        """Mount an empty scratch folder for one run, in memory and bounded."""
        if not self._isolated:
            yield
            return
        with step("mounts"):
            # Without the sticky bit: a program may change the files of its test.
            mount_tmpfs(SCRATCH, f"size={self._request['disk']},nr_inodes=4096,mode=777")
        yield
        with step("mounts"):
            call_libc("umount2", SCRATCH.encode(), DETACH)

    def _memory_kills(self) -> bytes:
        """Return how often the kernel has killed for lack of memory."""
        return os.pread(self._kills, 1 << 16, 0).partition(b"\noom_kill ")[2].partition(b"\n")[0]

    def _has_reached_limit(self) -> bool:
        """Return whether the programs' group has held all that it may."""
        limit: int = self._request["limits"]["RLIMIT_AS"]
        return int(os.pread(self._peak, 32, 0) or 0) >= limit - MARGIN_BYTES

    def _is_killed_for_memory(
        self, before: bytes, has_verdict: bool, codes: tuple[int, int]
    ) -> bool:
        """Return whether the kernel has killed the program for its own use of memory.

        Raises:
            SandboxBroken: it was killed because the machine has run out of memory.
        """
        if self._memory_kills() == before:
            return False
        if self._has_reached_limit():
            return True
        if self._request["group"] or (-SIGKILL in codes and not has_verdict):
            raise SandboxBroken(
                "memory: the machine has run out of it, and the kernel kills processes"
            )
        return False


if __name__ == "__main__":
    main()
