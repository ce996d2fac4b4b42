"""Stamps of the files that decide a score: a change on disk is noticed without reading them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

DECIDING_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model", ".gguf")
"""The suffixes of files that decide a score: weights, configuration, tokenizer and template."""


class FileStamp(NamedTuple):
    """The inode of a file, its size in bytes and the time of its last change in nanoseconds."""

    inode: int
    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class FileStamps:
    """The stamps of a model's files at one moment, by path."""

    stamps: Mapping[Path, FileStamp] = field(default_factory=dict)

    @classmethod
    def take(cls, paths: Iterable[Path]) -> "FileStamps":
        """Take the stamps of those of these files that decide a score."""
        deciding = (path for path in paths if path.suffix in DECIDING_SUFFIXES)
        stamps = {path: stamp for path in deciding if (stamp := _stamp(path)) is not None}
        return cls(stamps)

    def changed(self) -> Path | None:
        """Return a file that is another one now; None if all are the same.

        A file that is gone counts as the same: the model that was loaded from it stays right.
        """
        for path, stamp in self.stamps.items():
            if _stamp(path) not in (stamp, None):
                return path
        return None


def _stamp(path: Path) -> FileStamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return FileStamp(status.st_ino, status.st_size, status.st_mtime_ns)
