"""The process that reads untrusted texts: requests in, replies out, and nothing is lost if it dies.

It has no environment and holds no secret. The kernel kills it when one request takes too much CPU
time. It ends when its socket is closed, so it never outlives the service. A frame is a length of
four bytes and that many bytes more.
"""

import contextlib
import resource
import signal
import socket
import struct
from collections.abc import Callable

_LENGTH = struct.Struct(">I")


def serve(answer: Callable[[bytes], bytes], *, cpu_seconds: float, memory_bytes: int) -> None:
    """Answer the requests on file descriptor 0 until it is closed.

    Args:
        answer: returns the reply to one request.
        cpu_seconds: the CPU time for one request.
        memory_bytes: the address space of the process. When it is used up, `answer` raises
            MemoryError or the process dies.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for kind, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(kind, (limit, limit))
    with socket.socket(fileno=0) as connection:
        while (request := receive(connection)) is not None:
            # The default action of this signal is to end the process, also in the middle of C code.
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            try:
                reply = answer(request)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            send(connection, reply)


def send(connection: socket.socket, payload: bytes) -> None:
    """Write one frame."""
    connection.sendall(_LENGTH.pack(len(payload)) + payload)


def receive(connection: socket.socket) -> bytes | None:
    """Read one frame, or return None if the other side has closed."""
    head = _exactly(connection, _LENGTH.size)
    return None if head is None else _exactly(connection, _LENGTH.unpack(head)[0])


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    read = bytearray()
    while len(read) < size:
        part = connection.recv(size - len(read))
        if not part:
            return None
        read += part
    return bytes(read)
