"""The process that parses: untrusted texts in, verdicts out, and nothing is lost if it dies.

It has no environment and holds no secret. The kernel kills it when one text takes too much CPU
time. When its memory is used up, it dies or reports that the parser gave up. It ends when its
socket is closed, so it never outlives the service. A frame is a length of four bytes and that many
bytes more.
"""

import contextlib
import json
import resource
import signal
import socket
import struct
from collections.abc import Mapping
from typing import get_args

from assay_models.extraction.languages import LANGUAGES, Candidates, Language, SyntaxRule
from assay_models.extraction.syntax import check_syntax
from assay_models.extraction.verdict import Reason, SyntaxVerdict

CPU_SECONDS = 2.0
"""The CPU time for one text: five times what Python's parser takes for the worst one known
(docs/LOG.md)."""

MEMORY_BYTES = 512 << 20
"""The address space of the process."""

_LENGTH = struct.Struct(">I")
_LANGUAGES: Mapping[str, Language] = {name: name for name in LANGUAGES}
_RULES: Mapping[str, SyntaxRule] = {name: name for name in get_args(SyntaxRule)}
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
    """Read one frame, or return None if the other side has closed."""
    head = _exactly(connection, _LENGTH.size)
    return None if head is None else _exactly(connection, _LENGTH.unpack(head)[0])


def pack_request(code: str, candidates: Candidates) -> bytes:
    """Encode a request: the index of the first guess, the rule, the languages, a newline, the
    text."""
    head = ",".join((str(candidates.first_guess), candidates.rule, *candidates.languages))
    return f"{head}\n".encode() + code.encode(errors="surrogatepass")


def unpack_verdict(answer: bytes) -> SyntaxVerdict:
    """Decode the verdict in an answer."""
    reason, language, defines, is_newer = json.loads(answer)
    return SyntaxVerdict(_REASONS[reason], _LANGUAGES.get(language), tuple(defines), is_newer)


def _answer(request: bytes) -> bytes:
    head, _, text = request.partition(b"\n")
    first_guess, rule, *languages = head.decode().split(",")
    candidates = Candidates(
        tuple(_LANGUAGES[name] for name in languages), int(first_guess), _RULES[rule]
    )
    # The default action of this signal is to end the process, also in the middle of a parser.
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        code = text.decode(errors="surrogatepass")
        verdict = check_syntax(code, candidates)
    except MemoryError:
        verdict = SyntaxVerdict("parser_limit")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return json.dumps(
        (verdict.reason, verdict.language, verdict.defines, verdict.is_newer)
    ).encode()


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    read = bytearray()
    while len(read) < size:
        part = connection.recv(size - len(read))
        if not part:
            return None
        read += part
    return bytes(read)
