"""The files of offline scoring: an input that can be read twice, an output with one writer."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

STREAM = Path("-")


class FileError(Exception):
    """A file cannot be used; the text says which one and why."""


@dataclass(frozen=True, slots=True)
class Output:
    """The output of results. A stream cannot be read back, so a later run cannot resume it."""

    file: BinaryIO
    resumable: bool


@contextmanager
def opened_input(path: Path) -> Iterator[BinaryIO]:
    """Open the input at its start; `-` is the standard input. A stream is first copied to a file.

    Raises:
        FileError: the file cannot be read.
    """
    if path == STREAM:
        with _spooled(sys.stdin.buffer) as file:
            yield file
        return
    try:
        opened = path.open("rb")
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    with opened, nullcontext(opened) if opened.seekable() else _spooled(opened) as file:
        yield file


@contextmanager
def _spooled(stream: BinaryIO) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as spooled:
        shutil.copyfileobj(stream, spooled)
        spooled.seek(0)
        yield cast(BinaryIO, spooled)


@contextmanager
def opened_output(path: Path) -> Iterator[Output]:
    """Open the output at its start, with its content.

    Raises:
        FileError: the file cannot be written, or another process is writing it.
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
            _lock(descriptor, path)
        yield Output(cast(BinaryIO, file), resumable=regular)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileError(f"another run is writing {path}") from None
