"""ApiKeyFile: the bearer key of an engine, read from a file and again when the file changes."""

import os
from collections.abc import Mapping
from pathlib import Path

from assay_models.card import CardError

Stamp = tuple[int, int, int]


class ApiKeyFile:
    """A file that holds one key. No text or error of this class holds the key.

    Args:
        path: of the file; empty for an engine without keys.

    Raises:
        CardError: the file cannot be read, or holds no key.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._headers: Mapping[str, str] = {}
        self._stamp: Stamp | None = None
        if self._path is not None:
            try:
                self._read(self._path)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise CardError(f"engine.api_key_file {path}: {reason}") from None

    def headers(self) -> Mapping[str, str]:
        """Return the headers of a call. A file that became unreadable leaves the key as it was."""
        if self._path is not None:
            try:
                if _stamp(self._path) != self._stamp:
                    self._read(self._path)
            except (OSError, ValueError):
                pass  # it is being replaced, or is gone: the next call tries again
        return self._headers

    def _read(self, path: Path) -> None:
        stamp = _stamp(path)
        try:
            key = path.read_bytes().decode("ascii").strip()
        except UnicodeDecodeError:
            key = ""
        if not key or not key.isprintable() or " " in key:
            raise ValueError("the file must hold one key, printable ASCII without spaces")
        self._headers, self._stamp = {"authorization": f"Bearer {key}"}, stamp


def _stamp(path: Path) -> Stamp:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino
