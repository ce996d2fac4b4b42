"""What runs in the sandbox before any program does, and tries what no program may.

Not imported: its text is the program, and the tests call its functions. Each says whether the
promise of that name was kept.
"""

import contextlib
import ctypes
import os
import signal
import socket

NEW_USERS = 0x10000000
SET_NAME = 15


def network(port: int, name: str) -> bool:
    """Neither the machine's loopback nor its abstract sockets answer, nor is there a way around."""
    reached: list[object] = []
    with socket.socket() as internet, socket.socket(socket.AF_UNIX) as local:
        internet.settimeout(1.0)
        for one, address in ((internet, ("127.0.0.1", port)), (local, f"\0{name}")):
            with contextlib.suppress(OSError):
                one.connect(address)
                reached.append(address)
    with contextlib.suppress(OSError):
        reached.append(socket.socket(socket.AF_VSOCK))
    return not reached


def files(secret: str) -> bool:
    """The file of that path cannot be read, and nothing outside the scratch folder be written."""
    done = []
    with contextlib.suppress(OSError), open(secret) as file:
        done.append(file.read())
    others = "/", "/dev", "/var/tmp"  # noqa: S108 open to everybody, outside
    for folder in (*others, os.path.dirname(secret), os.path.dirname(os.__file__)):
        with contextlib.suppress(OSError), open(f"{folder}/assay-probe", "w") as file:
            done.append(file.name)
    with contextlib.suppress(OSError), open(os.__file__, "a") as file:
        done.append(file.name)
    return not done and not os.environ


def disk(most: int) -> bool:
    """No file may be larger than so many bytes, nor all files together."""
    room = os.statvfs(".")
    with open("large", "w") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, most + 1)
        except OSError:
            return room.f_blocks * room.f_frsize <= most
    return False


def processes(most: int) -> bool:
    """There cannot be more than so many at a time."""
    for count in range(1, most + 8):
        try:
            if os.fork() == 0:
                signal.pause()
        except OSError:
            return count <= most
    return False


def privileges() -> bool:
    """There is no way to become root, here or in namespaces of one's own."""
    with contextlib.suppress(OSError):
        os.setuid(0)
        return False
    return bool(ctypes.CDLL(None).unshare(NEW_USERS) == -1)


def signals(outside: int) -> bool:
    """Neither the process that judges nor the one of that number outside can be reached."""
    for process, number in ((os.getppid(), signal.SIGKILL), (outside, signal.SIGCONT)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)
            if process == outside:
                return False
    return True


def leftovers(name: str) -> bool:
    """Leave a process behind, of that name and in a session of its own; it has to end."""
    if os.fork() == 0:
        os.setsid()
        ctypes.CDLL(None).prctl(SET_NAME, name.encode())
        if os.fork() == 0:
            while True:
                signal.pause()
        os._exit(0)
    os.wait()
    return True
