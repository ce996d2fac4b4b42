"""The process that parses: untrusted texts in, verdicts out, and nothing to lose if it dies.

It has no environment, holds no secret, and is killed by the kernel when one text takes too much
CPU time; when its memory is used up, it dies or says that the parser gave up. It ends when its
socket is closed, so it never outlives the service. A frame is a length of four bytes and that many
more.
"""

import contextlib
import resource
import signal
import socket
import struct
from collections.abc import Mapping
from typing import get_args

from assay_models.extraction.languages import LANGUAGES, Candidates, Language
from assay_models.extraction.syntax import judge
from assay_models.extraction.verdict import Reason, Verdict

CPU_SECONDS = 2.0
"""CPU time for one text: five times what the worst one known takes of Python (docs/LOG.md)."""

MEMORY_BYTES = 512 << 20
"""Address space of the process."""

_LENGTH = struct.Struct(">I")
_LANGUAGES: Mapping[str, Language] = {name: name for name in LANGUAGES}
_REASONS: Mapping[str, Reason] = {name: name for name in get_args(Reason)}


def main() -> None:
    """Answer the requests on file descriptor 0 until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for kind, limit in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(kind, (limit, limit))
    with socket.socket(fileno=0) as connection:
        while (request := receive(connection)) is not None:
            send(connection, _answer(request))


def send(connection: socket.socket, payload: bytes) -> None:
    """Write one frame."""
    connection.sendall(_LENGTH.pack(len(payload)) + payload)


def receive(connection: socket.socket) -> bytes | None:
    """Read one frame; None if the other side has closed."""
    head = _exactly(connection, _LENGTH.size)
    return None if head is None else _exactly(connection, _LENGTH.unpack(head)[0])


def pack(code: str, candidates: Candidates) -> bytes:
    """A request: the number of sure candidates, the candidates, a newline, the text."""
    head = f"{candidates.guessed},{','.join(candidates.languages)}\n"
    return head.encode() + code.encode(errors="surrogatepass")


def unpack(answer: bytes) -> Verdict:
    """The verdict in an answer: its reason and, where there is one, its language."""
    reason, _, language = answer.decode().partition(" ")
    return Verdict(_REASONS[reason], _LANGUAGES.get(language))


def _answer(request: bytes) -> bytes:
    head, _, text = request.partition(b"\n")
    guessed, *languages = head.decode().split(",")
    tried = tuple(_LANGUAGES[name] for name in languages)
    # The default action of this signal is to end the process, also in the middle of a parser.
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        code = text.decode(errors="surrogatepass")
        verdict = judge(code, Candidates(tried, int(guessed)))
    except MemoryError:
        verdict = Verdict("parser_limit")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return f"{verdict.reason} {verdict.language or ''}".strip().encode()


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    read = bytearray()
    while len(read) < size:
        part = connection.recv(size - len(read))
        if not part:
            return None
        read += part
    return bytes(read)
