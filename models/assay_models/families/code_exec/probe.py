"""The program of the sandbox's self-test, which tries what no program may do.

It is not imported: its text is the program, and the tests call its functions. Each returns whether
the guarantee of that name holds.
"""

import contextlib
import ctypes
import os
import signal
import socket

NEW_USERS = 0x10000000
SET_NAME = 15
PRIVATE, CREATE = 0, 0o1600
REFUSED_CALLS: dict[str, tuple[object, ...]] = {
    "shmget": (PRIVATE, ctypes.c_size_t(1 << 20), CREATE),
    "semget": (PRIVATE, 1, CREATE),
    "msgget": (PRIVATE, CREATE),
    "memfd_create": (b"probe", 0),
    "inotify_init": (),
}


def network(port: int, name: str) -> bool:
    """Return whether the machine's loopback, abstract sockets and VSOCK are out of reach."""
    reached: list[object] = []
    with socket.socket() as internet, socket.socket(socket.AF_UNIX) as local:
        internet.settimeout(1.0)
        for client, address in ((internet, ("127.0.0.1", port)), (local, f"\0{name}")):
            with contextlib.suppress(OSError):
                client.connect(address)
                reached.append(address)
    with contextlib.suppress(OSError):
        reached.append(socket.socket(socket.AF_VSOCK))
    return not reached


def files(secret: str) -> bool:
    """Return whether that file is unreadable, and nothing outside the scratch folder writable."""
    done = []
    with contextlib.suppress(OSError), open(secret) as file:
        done.append(file.read())
    others = "/", "/dev", "/var/tmp"  # noqa: S108 writable for all users, outside
    for folder in (*others, os.path.dirname(secret), os.path.dirname(os.__file__)):
        with contextlib.suppress(OSError), open(f"{folder}/assay-probe", "w") as file:
            done.append(file.name)
    with contextlib.suppress(OSError), open(os.__file__, "a") as file:
        done.append(file.name)
    return not done and not os.environ


def disk(limit: int) -> bool:
    """Return whether one file, and all files together, are limited to that many bytes."""
    room = os.statvfs(".")
    with open("large", "w") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, limit + 1)
        except OSError:
            return room.f_blocks * room.f_frsize <= limit
    return False


def uncounted() -> bool:
    """Return whether memory that no limit of a process counts is refused."""
    libc = ctypes.CDLL(None)
    return all(getattr(libc, name)(*values) == -1 for name, values in REFUSED_CALLS.items())


def take(size: int) -> None:
    """Take that many bytes of memory."""
    bytearray(size)


def spin() -> None:
    """Use the processor for ever."""
    while True:
        pass


def hold(size: int) -> None:
    """Hold that many bytes, in pieces, in a file in memory."""
    with open("held", "wb") as file:
        for _ in range(0, size, 1 << 20):
            file.write(bytes(1 << 20))


def processes(limit: int) -> bool:
    """Return whether at most that many processes can exist at a time."""
    for count in range(1, limit + 8):
        try:
            if os.fork() == 0:
                signal.pause()
        except OSError:
            return count <= limit
    return False


def privileges() -> bool:
    """Return whether the program cannot become root, here or in new namespaces."""
    with contextlib.suppress(OSError):
        os.setuid(0)
        return False
    return bool(ctypes.CDLL(None).unshare(NEW_USERS) == -1)


def signals(outside: int) -> bool:
    """Return whether neither the supervisor nor that process outside can be signalled."""
    for process, number in ((os.getppid(), signal.SIGKILL), (outside, signal.SIGCONT)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)
            if process == outside:
                return False
    return True


def leftovers(name: str) -> bool:
    """Leave a process behind, with that name and in a session of its own; it has to end."""
    if os.fork() == 0:
        os.setsid()
        ctypes.CDLL(None).prctl(SET_NAME, name.encode())
        if os.fork() == 0:
            while True:
                signal.pause()
        os._exit(0)
    os.wait()
    return True
