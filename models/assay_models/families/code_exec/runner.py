"""Runs one program against its tests, shut off from the machine it runs on.

A program of its own, which imports the standard library alone: `python -c START`, with itself in
front of the request. It reads a marshalled request from
standard input and writes one line for each test, its outcome and CPU seconds (`pass 0.012`), or a
line that says what is broken (`broken mounts: Operation not permitted`). Three kinds of processes:

- the *door* enters new namespaces of users, mounts, processes, network and IPC, and waits;
- the *keeper*, process 1 in there, leaves nothing of the file system but Python's own files, starts
  a candidate for each test, kills what is left of it, and judges it by how it ended;
- the *candidate* gives up every privilege, runs the program, then the test, and ends itself.

No line of the program or of the tests runs in door or keeper, and nothing that a candidate prints
is read. A test is passed if its candidate says in memory shared with the keeper that it came to
the test's end, and then leaves with 0: whatever ends a process before leaves no mark.
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
    from assay_models.families.code_exec.canary import control_of

Request = Mapping[str, Any]
Verdict = tuple[str, float]
"""An outcome and the CPU seconds of the candidate with all that it started."""

NOBODY = 65534
SIGKILL, SIGXCPU = 9, 24
# Where the throw-away root is mounted: the first of these that hides nothing of Python's.
MOUNT_POINTS = ("/tmp", "/mnt", "/opt", "/home")  # noqa: S108 nothing is written there
SCRATCH = "/tmp"  # noqa: S108 a file system of its own, inside
DEVICES = ("null", "zero", "full", "random", "urandom")
# Loaded once in the keeper, so that no candidate waits for what most programs import.
USUAL = ("bisect", "collections", "functools", "heapq", "itertools", "math", "re", "typing")

# linux/sched.h, sys/mount.h, linux/prctl.h
NEW_MOUNTS, NEW_IPC, NEW_USERS = 0x00020000, 0x08000000, 0x10000000
NEW_PROCESSES, NEW_NETWORK = 0x20000000, 0x40000000
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT = 1, 2, 4, 32
BIND, RECURSIVE, PRIVATE, DETACH = 4096, 16384, 1 << 18, 2
# Flags that a mount must keep when it is mounted anew, by statvfs; the last has another number.
KEPT, HAS_RELATIVE_TIMES, RELATIVE_TIMES = 2 | 4 | 8 | 1024 | 2048, 4096, 1 << 21
DIE_WITH_PARENT, FILTER, ADOPT_ORPHANS, NO_NEW_PRIVILEGES = 1, 22, 36, 38
NO_CAPABILITIES = (struct.pack("Ii", 0x20080522, 0), bytes(24))  # version 3, this process

BEGAN, ENDED = 0, slice(1, 9)
DONE, ERROR, FAIL, MEMORY = 0, 101, 102, 103
OUTCOMES = {ERROR: "error", FAIL: "fail", MEMORY: "memory"}

libc = ctypes.CDLL(None, use_errno=True)


class Broken(Exception):
    """The sandbox itself does not work: `step: reason`."""


def main() -> NoReturn:
    """The door: read the request, let the keeper work apart, wait."""
    request = marshal.load(sys.stdin.buffer)  # noqa: S302 the service wrote it
    report = os.dup(1)
    request["root"] = os.geteuid() == 0
    try:
        with step("process"):
            kernel("prctl", DIE_WITH_PARENT, SIGKILL)
        if request["isolated"]:
            enter_namespaces(request["root"])
        with step("process"):
            keeper = os.fork()
        if keeper:
            os.waitpid(keeper, 0)
        else:
            verdicts = Keeper(request).verdicts()
            lines = [f"{outcome} {seconds:.3f}\n" for outcome, seconds in verdicts]
            os.write(report, "".join(lines).encode())
    except Broken as error:
        os.write(report, f"broken {error}\n".encode())
    os._exit(0)


@contextmanager
def step(name: str) -> Iterator[None]:
    """What fails in here breaks the sandbox, under this name."""
    try:
        yield
    except OSError as error:
        raise Broken(f"{name}: {error.strerror}") from error


def kernel(name: str, *arguments: object) -> None:
    """Call a function of the C library.

    Raises:
        OSError: it returned -1.
    """
    wide = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments]
    if getattr(libc, name)(*wide) == -1:
        fail(ctypes.get_errno())


def fail(code: int) -> None:
    """Raise the error of that number, if it is one."""
    if code:
        raise OSError(code, os.strerror(code))


def enter_namespaces(root: bool) -> None:
    """Leave the machine's users, mounts, processes, network and IPC. Whoever is not root stays
    himself in there. Root stays root, beside nobody, whom the candidates become; such a map can
    only be written from outside."""
    user, group, door = os.geteuid(), os.getegid(), os.getpid()
    with step("process"):
        ready, tell = os.pipe()
        outside = os.fork() if root else None
    if outside == 0:
        os.close(tell)
        os._exit(map_both(door) if os.read(ready, 1) else 0)
    with step("namespaces"):
        kernel("unshare", NEW_USERS | NEW_MOUNTS | NEW_PROCESSES | NEW_NETWORK | NEW_IPC)
        kernel("prctl", DIE_WITH_PARENT, SIGKILL)  # a new user namespace has undone the first
    with step("users"):
        if outside is None:
            write("/proc/self/setgroups", "deny")
            write("/proc/self/uid_map", f"{user} {user} 1")
            write("/proc/self/gid_map", f"{group} {group} 1")
        else:
            os.write(tell, b"!")
            fail(os.waitstatus_to_exitcode(os.waitpid(outside, 0)[1]))


def map_both(door: int) -> int:
    """Map root and nobody to themselves for the namespace of that process; the error's number."""
    try:
        for kind in ("uid", "gid"):
            write(f"/proc/{door}/{kind}_map", f"0 0 1\n{NOBODY} {NOBODY} 1")
    except OSError as error:
        return error.errno or ERROR
    return 0


def write(path: str, text: str) -> None:
    """Write a file of the kernel's, in one go."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def shut_files(readable: Sequence[str]) -> None:
    """Make a new root with what may be read, read-only, and let go of the old one."""
    kernel("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)
    root = next(
        place
        for place in MOUNT_POINTS
        if os.path.isdir(place) and not any(f"{path}/".startswith(f"{place}/") for path in readable)
    )
    mount_memory(root, "size=256k,mode=755")
    for path in (*readable, *(f"/dev/{device}" for device in DEVICES)):
        show(path, root + path)
    os.symlink(SCRATCH, root + "/dev/shm")  # noqa: S108 semaphores are made there
    os.makedirs(root + SCRATCH, exist_ok=True)
    os.chdir(root)
    kernel("pivot_root", b".", b".")
    kernel("umount2", b".", DETACH)
    os.chdir("/")
    kernel("mount", None, b"/", None, REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES, None)


def show(path: str, target: str) -> None:
    """Let a file, a folder or a link of the old root be seen in the new one."""
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    kernel("mount", path.encode(), target.encode(), None, BIND | RECURSIVE, None)
    has = os.statvfs(path).f_flag
    flags = has & KEPT | (RELATIVE_TIMES if has & HAS_RELATIVE_TIMES else 0)
    flags |= REMOUNT | BIND | READ_ONLY | NO_SUID
    kernel("mount", None, target.encode(), None, flags, None)


def mount_memory(place: str, options: str) -> None:
    """A file system in memory."""
    kernel("mount", b"tmpfs", place.encode(), b"tmpfs", NO_SUID | NO_DEVICES, options.encode())


class Keeper:
    """Process 1 in there: starts a candidate for each test, and judges it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._isolated = bool(request["isolated"])
        with step("process"):
            kernel("prctl", DIE_WITH_PARENT, SIGKILL)
            kernel("prctl", ADOPT_ORPHANS, 1)
            self._statistics = os.open("/proc/vmstat", os.O_RDONLY)
            nothing = os.open("/dev/null", os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nothing, standard)
        for name in USUAL:
            __import__(name)
        if self._isolated:
            if os.getpid() != 1:  # it is about to kill all processes that it can see
                raise Broken("namespaces: the keeper is not the first of its processes")
            with step("mounts"):
                shut_files(request["readable"])

    def verdicts(self) -> list[Verdict]:
        """One for each test, in order. Tests that no CPU time is left for are skipped."""
        each, left = self._request["cpu_seconds"], float(self._request["total_cpu_seconds"])
        found: list[Verdict] = []
        for test in self._request["tests"]:
            limit = min(each, int(left) + 1)
            found.append(self._tried(compiled(test), limit) if left > 0 else ("skipped", 0.0))
            left -= found[-1][1]
        if all(outcome == "pass" for outcome, _ in found):
            control, _ = self._tried(compiled(control_of(self._request["tests"])), each)
            if control == "pass":
                return [("forged", seconds) for _, seconds in found]
        return found

    def _tried(self, test: CodeType, limit: int) -> Verdict:
        marks = mmap.mmap(-1, mmap.PAGESIZE)
        kills, before = self._memory_kills(), cpu_of_children()
        with self._scratch(), step("process"):
            candidate = os.fork()
            if not candidate:
                run(self._request, test, limit, marks)
            _, status = os.waitpid(candidate, 0)
            self._end_all()
        code, spent = os.waitstatus_to_exitcode(status), cpu_of_children() - before
        if not marks[BEGAN]:
            raise Broken(f"candidate: {os.strerror(code) if code > 0 else f'signal {-code}'}")
        if spent >= limit or code == -SIGXCPU:
            return "timeout", spent
        if code == -SIGKILL and self._memory_kills() != kills:
            raise Broken("memory: the machine has run out of it, and the kernel kills processes")
        if code == DONE and marks[ENDED] == candidate.to_bytes(8):
            return "pass", spent
        return "crash" if code < 0 else OUTCOMES.get(code, "exit"), spent

    @contextmanager
    def _scratch(self) -> Iterator[None]:
        """A fresh folder for one candidate, in memory and bounded."""
        if not self._isolated:
            yield
            return
        with step("mounts"):
            mount_memory(SCRATCH, f"size={self._request['disk']},nr_inodes=4096,mode=1777")
        yield
        with step("mounts"):
            kernel("umount2", SCRATCH.encode(), DETACH)

    def _end_all(self) -> None:
        """Kill whatever a candidate has left running."""
        while True:
            with suppress(ProcessLookupError):
                for process in [-1] if self._isolated else children():
                    os.kill(process, SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return

    def _memory_kills(self) -> bytes:
        """How often the kernel has killed for want of memory, on the whole machine."""
        statistics = os.pread(self._statistics, 1 << 16, 0)
        return statistics.partition(b"\noom_kill ")[2].partition(b"\n")[0]


def cpu_of_children() -> float:
    """CPU seconds of all that has ended and been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def children() -> list[int]:
    """The processes that this one started or adopted."""
    with open("/proc/thread-self/children", encoding="ascii") as file:
        return [int(number) for number in file.read().split()]


def compiled(test: Any) -> CodeType:
    """A test, text or tree, as the candidates run it; assertions always count."""
    return compile(test, "<test>", "exec", dont_inherit=True, optimize=0)


def run(request: Request, test: CodeType, limit: int, marks: mmap.mmap) -> NoReturn:
    """The candidate: settle in, run program and test, end."""
    code, leave, own_number = ERROR, os._exit, os.getpid
    try:
        give_up(request, limit)
        module = ModuleType("candidate")
        sys.modules["candidate"] = sys.modules["__main__"] = module
        marks[BEGAN] = 1
        program = compile(request["program"], "candidate.py", "exec", dont_inherit=True, optimize=0)
        exec(program, module.__dict__)  # noqa: S102 this is what the sandbox is for
        exec(test, module.__dict__)  # noqa: S102
        marks[ENDED] = own_number().to_bytes(8)  # a child that comes here has another
        code = DONE
    except AssertionError:
        code = FAIL
    except MemoryError:
        code = MEMORY
    except SystemExit:
        code = DONE
    finally:
        leave(code)


def give_up(request: Request, limit: int) -> None:
    """Every open file, every privilege, and most of everything else."""
    try:
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        os.chdir(request["folder"])
        os.environ.clear()
        for name, most in request["limits"].items():
            resource.setrlimit(getattr(resource, name), (most, most))
        # At the first a signal comes that can be caught, at the second one that cannot.
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        if request["isolated"]:
            # Door and keeper count where they have the candidate's user.
            most = request["processes"] + (0 if request["root"] else 2)
            resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        if request["root"]:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        kernel("capset", *NO_CAPABILITIES)
        kernel("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        if code := request["filter"]:
            instructions = ctypes.create_string_buffer(code)
            head = struct.pack("HP", len(code) // 8, ctypes.addressof(instructions))
            kernel("prctl", FILTER, 2, head, 0, 0)
    except OSError as error:
        os._exit(error.errno or ERROR)


if __name__ == "__main__":
    main()
