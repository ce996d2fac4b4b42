"""The runner of one program against its tests, isolated from the machine.

It is a program of its own, which imports only the standard library: `python -c START`, with itself
in front of the request. It reads a marshalled request from standard input and writes one line for
each test: its outcome, its CPU seconds, the number of the exception that ended it, and the digest
of its output if it was given an input (`pass 0.012 0 -`); or a line that says what is broken
(`broken mounts: Operation not permitted`). There are three kinds of processes:

- the *launcher* enters new namespaces of users, mounts, processes, network and IPC, and waits;
- the *supervisor*, process 1 in there, removes all of the file system but Python's own files,
  starts a candidate for each test, kills what is left of it, and reads the outcome off its exit;
- the *candidate* drops every privilege, runs the program, then the test, and ends itself.

No line of the program or of the tests runs in launcher or supervisor, and of what a candidate
prints no more than a digest is read. A test is passed if its candidate writes to memory shared with
the supervisor that it reached its end, and then exits with 0: one that ends earlier leaves no mark.
"""

import ctypes
import marshal
import mmap
import os
import resource
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # it runs in front of this file, in the same module
    from assay_models.families.code_exec.canary import make_canary
    from assay_models.families.code_exec.exchange import (
        Exchange,
        children,
        cpu_of_children,
        exception_number,
    )

Request = Mapping[str, Any]
Result = tuple[str, float, int, str]
"""An outcome, the CPU seconds of the candidate with all processes that it started, the number of
the exception that ended it, and the digest of its output, or `-`."""

UNPRIVILEGED_UID = 65534
SIGKILL, SIGXCPU = 9, 24
# The temporary root is mounted on the first of these that hides nothing of Python's.
MOUNT_POINTS = ("/tmp", "/mnt", "/opt", "/home")  # noqa: S108 nothing is written there
SCRATCH = "/tmp"  # noqa: S108 a file system of its own, inside
HOST = b"sandbox"
DEVICES = ("null", "zero", "full", "random", "urandom")
# Imported once in the supervisor, so that no candidate waits for what most programs import.
PRELOADED_MODULES = (
    "bisect",
    "collections",
    "functools",
    "heapq",
    "itertools",
    "math",
    "re",
    "typing",
)

# linux/sched.h, sys/mount.h, linux/prctl.h
NEW_MOUNTS, NEW_HOST, NEW_IPC, NEW_USERS = 0x00020000, 0x04000000, 0x08000000, 0x10000000
NEW_PROCESSES, NEW_NETWORK = 0x20000000, 0x40000000
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT = 1, 2, 4, 32
BIND, RECURSIVE, PRIVATE, DETACH = 4096, 16384, 1 << 18, 2
# Flags that a mount must keep when it is mounted anew, by statvfs; the last has another number.
KEPT, HAS_RELATIVE_TIMES, RELATIVE_TIMES = 2 | 4 | 8 | 1024 | 2048, 4096, 1 << 21
DIE_WITH_PARENT, FILTER, ADOPT_ORPHANS, NO_NEW_PRIVILEGES = 1, 22, 36, 38
NO_CAPABILITIES = (struct.pack("Ii", 0x20080522, 0), bytes(24))  # version 3, this process

BEGAN, ENDED, EXCEPTION = 0, slice(1, 9), 9
DONE, EXITED, ERROR, FAIL, MEMORY = 0, 1, 101, 102, 103
OUTCOME_BY_EXIT_CODE = {ERROR: "error", FAIL: "fail", MEMORY: "memory"}

libc = ctypes.CDLL(None, use_errno=True)


class SandboxBroken(Exception):
    """The sandbox itself does not work: `step: reason`."""


def main() -> NoReturn:
    """Launch: read the request, start the supervisor in new namespaces, wait."""
    request = marshal.load(sys.stdin.buffer)  # noqa: S302 the service wrote it
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
            results = Supervisor(request).results()
            lines = [
                f"{outcome} {seconds:.3f} {exception} {digest}\n"
                for outcome, seconds, exception, digest in results
            ]
            os.write(report, "".join(lines).encode())
    except SandboxBroken as error:
        os.write(report, f"broken {error}\n".encode())
    os._exit(0)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Raise `SandboxBroken` with this name where the system refuses something in the block."""
    try:
        yield
    except OSError as error:
        raise SandboxBroken(f"{name}: {error.strerror}") from error


def call_libc(name: str, *arguments: object) -> None:
    """Call a function of the C library.

    Raises:
        OSError: it returned -1.
    """
    wide = [
        ctypes.c_ulong(argument) if isinstance(argument, int) else argument
        for argument in arguments
    ]
    if getattr(libc, name)(*wide) == -1:
        raise_errno(ctypes.get_errno())


def raise_errno(code: int) -> None:
    """Raise the error of that number, unless it is 0."""
    if code:
        raise OSError(code, os.strerror(code))


def enter_namespaces(is_root: bool) -> None:
    """Enter new namespaces of users, mounts, processes, network and IPC.

    A user that is not root keeps its id in there. Root stays root, beside the unprivileged user
    that the candidates become; such a map can only be written from outside.
    """
    user, group, launcher = os.geteuid(), os.getegid(), os.getpid()
    with step("process"):
        ready, notify = os.pipe()
        outside = os.fork() if is_root else None
    if outside == 0:
        os.close(notify)
        os._exit(map_root_and_unprivileged(launcher) if os.read(ready, 1) else 0)
    with step("namespaces"):
        call_libc(
            "unshare", NEW_USERS | NEW_MOUNTS | NEW_PROCESSES | NEW_NETWORK | NEW_IPC | NEW_HOST
        )
        call_libc("prctl", DIE_WITH_PARENT, SIGKILL)  # a new user namespace has undone the first
    with step("users"):
        if outside is None:
            write("/proc/self/setgroups", "deny")
            write("/proc/self/uid_map", f"{user} {user} 1")
            write("/proc/self/gid_map", f"{group} {group} 1")
        else:
            os.write(notify, b"!")
            raise_errno(os.waitstatus_to_exitcode(os.waitpid(outside, 0)[1]))
    with step("namespaces"):
        call_libc("sethostname", HOST, len(HOST))


def map_root_and_unprivileged(process: int) -> int:
    """Map root and the unprivileged user to themselves in the namespace of that process.

    Returns:
        The number of the error, or 0.
    """
    unprivileged = f"{UNPRIVILEGED_UID} {UNPRIVILEGED_UID} 1"
    try:
        for kind in ("uid", "gid"):
            write(f"/proc/{process}/{kind}_map", f"0 0 1\n{unprivileged}")
    except OSError as error:
        return error.errno or ERROR
    return 0


def write(path: str, text: str) -> None:
    """Write a file of the kernel in one call."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def restrict_files(readable: Sequence[str], hidden: Sequence[str]) -> None:
    """Replace the root by a new, read-only one that holds only what may be read."""
    call_libc("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)
    root = next(
        place
        for place in MOUNT_POINTS
        if os.path.isdir(place) and not any(f"{path}/".startswith(f"{place}/") for path in readable)
    )
    mount_tmpfs(root, "size=256k,mode=755")
    for path in (*readable, *(f"/dev/{device}" for device in DEVICES)):
        bind_read_only(path, root + path)
    for path in hidden:
        mount_tmpfs(root + path, "size=4k,mode=555")
    os.symlink(SCRATCH, root + "/dev/shm")  # noqa: S108 semaphores are made there
    os.makedirs(root + SCRATCH, exist_ok=True)
    os.chdir(root)
    call_libc("pivot_root", b".", b".")
    call_libc("umount2", b".", DETACH)
    os.chdir("/")
    call_libc("mount", None, b"/", None, REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES, None)


def bind_read_only(path: str, target: str) -> None:
    """Make a file, a folder or a link of the old root readable in the new one."""
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    call_libc("mount", path.encode(), target.encode(), None, BIND | RECURSIVE, None)
    present = os.statvfs(path).f_flag
    flags = present & KEPT | (RELATIVE_TIMES if present & HAS_RELATIVE_TIMES else 0)
    flags |= REMOUNT | BIND | READ_ONLY | NO_SUID
    call_libc("mount", None, target.encode(), None, flags, None)


def mount_tmpfs(place: str, options: str) -> None:
    """Mount a file system in memory."""
    call_libc("mount", b"tmpfs", place.encode(), b"tmpfs", NO_SUID | NO_DEVICES, options.encode())


class Supervisor:
    """Process 1 of the sandbox: it runs a candidate for each test, and reads off the outcome."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._isolated = bool(request["isolated"])
        with step("process"):
            call_libc("prctl", DIE_WITH_PARENT, SIGKILL)
            call_libc("prctl", ADOPT_ORPHANS, 1)
            self._statistics = os.open("/proc/vmstat", os.O_RDONLY)
            members, events = request["group"] or ("/dev/null", "/dev/null")
            self._members, self._events = (
                os.open(members, os.O_WRONLY),
                os.open(events, os.O_RDONLY),
            )
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

    def results(self) -> list[Result]:
        """Run all tests, then the program with each input, and return their results in order.

        Runs that no CPU time is left for are skipped. If all tests pass, the canary is run as well.
        """
        tests, inputs = self._request["tests"], self._request["inputs"]
        each, left = self._request["cpu_seconds"], float(self._request["total_cpu_seconds"])
        results: list[Result] = []
        for text, is_input in [(test, False) for test in tests] + [(line, True) for line in inputs]:
            limit = min(each, int(left) + 1)
            result = self._run(text, limit, is_input) if left > 0 else ("skipped", 0.0, 0, "-")
            results.append(result)
            left -= result[1]
        passes = bool(tests) and all(result[0] == "pass" for result in results[: len(tests)])
        if passes and self._run(make_canary(tests), each)[0] == "pass":
            return [("forged", *result[1:]) for result in results]
        return results

    def _run(self, text: Any, limit: int, is_input: bool = False) -> Result:
        """Run the program with a test, or with an input."""
        test = None if is_input else compile_test(text)
        exchange = Exchange(text) if is_input else None
        progress = mmap.mmap(-1, mmap.PAGESIZE)
        kills, before = self._memory_kills(), cpu_of_children()
        in_group = kills_in(self._events)
        with self._scratch(), step("process"):
            candidate = os.fork()
            if not candidate:
                os.write(self._members, b"0")
                run_candidate(self._request, test, exchange, limit, progress)
            _, status = os.waitpid(candidate, 0)
            self._kill_all()
        code, spent = os.waitstatus_to_exitcode(status), cpu_of_children() - before
        digest = "-" if exchange is None else exchange.digest()
        if not progress[BEGAN]:
            raise SandboxBroken(
                f"candidate: {os.strerror(code) if code > 0 else f'signal {-code}'}"
            )
        if kills_in(self._events) != in_group:
            return "memory", spent, 0, digest
        if spent >= limit or code == -SIGXCPU:
            return "timeout", spent, 0, digest
        if code == -SIGKILL and self._memory_kills() != kills:
            raise SandboxBroken(
                "memory: the machine has run out of it, and the kernel kills processes"
            )
        has_ended = exchange is not None or progress[ENDED] == candidate.to_bytes(8)
        if code == DONE and has_ended:
            return "pass", spent, 0, digest
        outcome = "crash" if code < 0 else OUTCOME_BY_EXIT_CODE.get(code, "exit")
        return outcome, spent, progress[EXCEPTION], digest

    @contextmanager
    def _scratch(self) -> Iterator[None]:
        """Mount an empty scratch folder for one candidate, in memory and bounded."""
        if not self._isolated:
            yield
            return
        with step("mounts"):
            mount_tmpfs(SCRATCH, f"size={self._request['disk']},nr_inodes=4096,mode=1777")
        yield
        with step("mounts"):
            call_libc("umount2", SCRATCH.encode(), DETACH)

    def _kill_all(self) -> None:
        """Kill all processes that a candidate has left running."""
        while True:
            with suppress(ProcessLookupError):
                for process in [-1] if self._isolated else children():
                    os.kill(process, SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return

    def _memory_kills(self) -> bytes:
        """Return how often the kernel has killed for lack of memory, on the whole machine."""
        return kills_in(self._statistics)


def kills_in(statistics: int) -> bytes:
    """Return how often the kernel has killed for lack of memory, by an open file of its own."""
    return os.pread(statistics, 1 << 16, 0).partition(b"\noom_kill ")[2].partition(b"\n")[0]


def compile_test(test: Any) -> CodeType:
    """Compile a test, given as text or tree, with assertions always on."""
    return compile(test, "<test>", "exec", dont_inherit=True, optimize=0)


def run_candidate(
    request: Request,
    test: CodeType | None,
    exchange: "Exchange | None",
    limit: int,
    progress: mmap.mmap,
) -> NoReturn:
    """Run the program, with an input or before a test, in the candidate's process, and end it."""
    code, leave, own_number = ERROR, os._exit, os.getpid
    number_of, current = exception_number, sys.exception
    failed, exhausted = number_of(AssertionError()), number_of(MemoryError())
    try:
        if exchange is not None:
            exchange.connect()
        drop_privileges(request, limit)
        module = ModuleType("candidate" if exchange is None else "__main__")
        sys.modules["candidate"] = sys.modules["__main__"] = module
        progress[BEGAN] = 1
        program = compile(request["program"], "candidate.py", "exec", dont_inherit=True, optimize=0)
        if exchange is not None:
            code = DONE if exchange.run(program, module.__dict__) else EXITED
        elif test is not None:
            exec(program, module.__dict__)  # noqa: S102 this is what the sandbox is for
            exec(test, module.__dict__)  # noqa: S102
            progress[ENDED] = own_number().to_bytes(8)  # a child process has another number
            code = DONE
    except AssertionError:
        code, progress[EXCEPTION] = FAIL, failed
    except MemoryError:
        code, progress[EXCEPTION] = MEMORY, exhausted
    except SystemExit:
        code = DONE
    finally:
        try:
            if code == ERROR:
                progress[EXCEPTION] = number_of(current())
        finally:
            leave(code)


def drop_privileges(request: Request, limit: int) -> None:
    """Close every open file, drop every privilege, and set all limits."""
    try:
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        os.chdir(request["folder"])
        os.environ.clear()
        for name, maximum in request["limits"].items():
            resource.setrlimit(getattr(resource, name), (maximum, maximum))
        # The signal at the first limit can be caught, the one at the second cannot.
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        if request["isolated"]:
            # Launcher and supervisor count where they have the candidate's user.
            maximum = request["processes"] + (0 if request["root"] else 2)
            resource.setrlimit(resource.RLIMIT_NPROC, (maximum, maximum))
        if request["root"]:
            os.setgroups([])
            os.setresgid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
            os.setresuid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
        call_libc("capset", *NO_CAPABILITIES)
        call_libc("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        if code := request["filter"]:
            instructions = ctypes.create_string_buffer(code)
            head = struct.pack("HP", len(code) // 8, ctypes.addressof(instructions))
            call_libc("prctl", FILTER, 2, head, 0, 0)
    except OSError as error:
        os._exit(error.errno or ERROR)


if __name__ == "__main__":
    main()
