"""Install vLLM for the processor into a folder of its own: `install.py FOLDER`.

It takes 3.5 GB and some minutes. Its packages come as wheels only, in the versions of
`requirements.txt`; libraries for pictures and sound, which fit no build of PyTorch here, are left
out. Needs an index that has PyTorch's builds for the processor.
"""

import shutil
import subprocess
import sys
import venv
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
PIP = (
    *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
    *("--only-binary", ":all:"),
)
VERSION = "0.32.0"
TIMEOUT_SECONDS = 1800


def main() -> None:
    """Install everything; the folder exists only if every step succeeded."""
    folder = Path(sys.argv[1]).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        command = [str(folder / "bin" / "python"), *PIP, "-r", str(HERE / "requirements.txt")]
        subprocess.run(command, check=True, timeout=TIMEOUT_SECONDS)
        name_package(folder)
        undo.pop_all()


def name_package(folder: Path) -> None:
    """Write the metadata under the name by which vLLM finds its own version."""
    (packages,) = folder.glob("lib/python*/site-packages")
    metadata = packages / f"vllm-{VERSION}+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")


if __name__ == "__main__":
    main()
