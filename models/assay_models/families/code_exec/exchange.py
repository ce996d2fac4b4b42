"""The traces of a program in the sandbox: its output, its exception, its processes and their time.

This file is executed in the sandbox, in front of the runner, and imports only the standard library.
The expected output never enters the sandbox: the service compares digests.
"""

import atexit
import builtins
import hashlib
import os
import re
import resource
import sys
import threading
from collections.abc import Mapping
from types import CodeType
from typing import Any

EXCEPTIONS: tuple[str, ...] = (
    "",
    *sorted(
        name
        for name, value in vars(builtins).items()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__name__ == name
    ),
)
"""The names of Python's own exceptions by number. 0 stands for none."""
# A list of lines would take a hundred times the memory of an output of line breaks. Each run of
# blanks is tried from its beginning alone, so that the time is linear.
_LINE_ENDS = re.compile(rb"(?<![ \t\x0b\x0c])[ \t\x0b\x0c]++(?=\n)")
_NUMBERS: Mapping[type, int] = {
    getattr(builtins, name): number for number, name in enumerate(EXCEPTIONS) if name
}


def exception_number(error: BaseException | None) -> int:
    """Return the number of an exception; for a program's own, that of the nearest of Python's."""
    if error is None:
        return 0
    return next(_NUMBERS[base] for base in type(error).__mro__ if base in _NUMBERS)


def output_digest(output: bytes) -> str:
    """Return the SHA-256 of an output as judges compare it, in hexadecimal digits.

    Kinds of line ends, blanks at the end of a line, and empty lines at the end do not matter.
    """
    unified = output.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return hashlib.sha256(_LINE_ENDS.sub(b"", unified).rstrip()).hexdigest()


def cpu_of_children() -> float:
    """Return the CPU seconds of all child processes that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def children() -> list[int]:
    """List the processes that this one started or adopted."""
    with open("/proc/thread-self/children", encoding="ascii") as file:
        return [int(number) for number in file.read().split()]


class Exchange:
    """The input of one run of a program, and its output, both in memory."""

    def __init__(self, text: str) -> None:
        self._input, self._output = os.memfd_create("input"), os.memfd_create("output")
        with open(self._input, "wb", closefd=False) as file:
            file.write(text.encode(errors="surrogatepass"))
        os.lseek(self._input, 0, os.SEEK_SET)

    @property
    def files(self) -> list[int]:
        """The files of the program's input and of its output."""
        return [self._input, self._output]

    def digest(self) -> str:
        """Return the digest of the output, and close both."""
        os.lseek(self._output, 0, os.SEEK_SET)
        with open(self._output, "rb") as file:
            digest = output_digest(file.read())
        os.close(self._input)
        return digest


def connect() -> None:
    """Read and write the files 0 and 1 of this process as its standard input and output."""
    # What the launcher has read ahead of its own input is not the program's.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    # Typeshed declares these final; a program may read and write them all the same.
    sys.__stdin__, sys.__stdout__ = sys.stdin, sys.stdout  # type: ignore[misc]


def run_main(program: CodeType, namespace: dict[str, Any]) -> bool:
    """Run a program to its end as an interpreter does; return whether its status is 0."""
    status: object = None
    try:
        exec(program, namespace)  # noqa: S102 this is what the sandbox is for
    except SystemExit as end:
        status = end.code
    while others := [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]:
        others[0].join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None:
            stream.flush()
    return status in (None, 0)
