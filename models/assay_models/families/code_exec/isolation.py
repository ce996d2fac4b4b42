"""Isolation of the processes of the sandbox: namespaces, the files they see, privileges, limits.

This file is executed in the sandbox, in front of the runner, and imports only the standard library.
"""

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Request = Mapping[str, Any]

PROGRAM_UID, JUDGE_UID = 65534, 65533
SIGKILL, SIGXCPU = 9, 24
# The temporary root is mounted on the first of these that hides nothing of Python's.
MOUNT_POINTS = ("/tmp", "/mnt", "/opt", "/home")  # noqa: S108 nothing is written there
HOST_NAME = b"sandbox"
SCRATCH = "/tmp"  # noqa: S108 a file system of its own, inside
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
NEW_MOUNTS, NEW_IPC, NEW_USERS = 0x00020000, 0x08000000, 0x10000000
NEW_PROCESSES, NEW_NETWORK, NEW_NAMES = 0x20000000, 0x40000000, 0x04000000
READ_ONLY, NO_SUID, NO_DEVICES, REMOUNT = 1, 2, 4, 32
BIND, RECURSIVE, PRIVATE, DETACH = 4096, 16384, 1 << 18, 2
# Flags that a mount must keep when it is mounted anew, by statvfs; the last has another number.
KEPT, HAS_RELATIVE_TIMES, RELATIVE_TIMES = 2 | 4 | 8 | 1024 | 2048, 4096, 1 << 21
DIE_WITH_PARENT, DUMPABLE, FILTER, ADOPT_ORPHANS, NO_NEW_PRIVILEGES = 1, 4, 22, 36, 38
NO_CAPABILITIES = (struct.pack("Ii", 0x20080522, 0), bytes(24))  # version 3, this process
# Beside the processes of a program: launcher, supervisor, host and judge.
OWN_PROCESSES = 4

libc = ctypes.CDLL(None, use_errno=True)


class SandboxBroken(Exception):
    """The sandbox itself does not work: `step: reason`."""


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
    """Enter new namespaces of users, mounts, processes, network, IPC and host names.

    A user that is not root keeps its id in there. Root stays root, beside the unprivileged users
    that judges and candidates become; such a map can only be written from outside.
    """
    user, group, launcher = os.geteuid(), os.getegid(), os.getpid()
    with step("process"):
        ready, notify = os.pipe()
        outside = os.fork() if is_root else None
    if outside == 0:
        os.close(notify)
        os._exit(map_users(launcher) if os.read(ready, 1) else 0)
    with step("namespaces"):
        kinds = NEW_USERS | NEW_MOUNTS | NEW_PROCESSES | NEW_NETWORK | NEW_IPC | NEW_NAMES
        call_libc("unshare", kinds)
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
        call_libc("sethostname", HOST_NAME, len(HOST_NAME))


def map_users(process: int) -> int:
    """Map root and the unprivileged users to themselves in the namespace of that process.

    Returns:
        The number of the error, or 0.
    """
    users = "\n".join(f"{user} {user} 1" for user in (0, JUDGE_UID, PROGRAM_UID))
    try:
        for kind in ("uid", "gid"):
            write(f"/proc/{process}/{kind}_map", users)
    except OSError as error:
        return error.errno or 1
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


def drop_privileges(request: Request, limit: int, user: int) -> None:
    """Drop every privilege, set all limits, and become that user where root runs the sandbox.

    Files above the standard ones are kept: the caller closes what it does not need.
    """
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir(request["folder"])
        os.umask(0)
        os.environ.clear()
        for name, maximum in request["limits"].items():
            resource.setrlimit(getattr(resource, name), (maximum, maximum))
        # The signal at the first limit can be caught, the one at the second cannot.
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        if request["isolated"]:
            # Where they have the same user, the sandbox's own processes count as well.
            maximum = request["processes"] + (0 if request["root"] else OWN_PROCESSES)
            resource.setrlimit(resource.RLIMIT_NPROC, (maximum, maximum))
        if request["root"]:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        call_libc("capset", *NO_CAPABILITIES)
        call_libc("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        call_libc("prctl", DUMPABLE, 0, 0, 0, 0)
        call_libc("prctl", DIE_WITH_PARENT, SIGKILL)
        install_filter(request["filter"])
    except OSError as error:
        os._exit(error.errno or 1)


def install_filter(code: bytes) -> None:
    """Filter the system calls of this process and its children; without code, filter nothing."""
    if code:
        instructions = ctypes.create_string_buffer(code)
        head = struct.pack("HP", len(code) // 8, ctypes.addressof(instructions))
        call_libc("prctl", FILTER, 2, head, 0, 0)
