"""The two files of a scoring run: an input that can be read twice, an output that one run owns."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

STREAM = Path("-")


class FileError(Exception):
    """A file cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where results go. A stream cannot be read back, so that no run can go on in it."""

    file: BinaryIO
    resumable: bool


@contextmanager
def opened_input(path: Path) -> Iterator[BinaryIO]:
    """The input from its beginning; `-` is the standard input, which is first read to its end.

    Raises:
        FileError: it cannot be read.
    """
    if path == STREAM:
        with tempfile.TemporaryFile() as spooled:
            shutil.copyfileobj(sys.stdin.buffer, spooled)
            spooled.seek(0)
            yield cast(BinaryIO, spooled)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def opened_output(path: Path, restart: bool) -> Iterator[Output]:
    """The output at its beginning, what it held still in it; emptied for `restart`.

    Raises:
        FileError: it cannot be written, or another run is writing it.
    """
    if path == STREAM:
        yield Output(sys.stdout.buffer, resumable=False)
        return
    regular = path.is_file() or not path.exists()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT if regular else os.O_WRONLY, 0o666)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    with open(descriptor, "r+b" if regular else "wb", buffering=0) as file:
        if regular:
            _own(descriptor, path)
            if restart:
                file.truncate(0)
        yield Output(cast(BinaryIO, file), resumable=regular)


def _own(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileError(f"another run is writing {path}") from None
