"""Install rerankers of other projects into a folder of their own: `install.py FOLDER`.

They come from PyPI, as wheels only, and from the npm registry, without their scripts, all of them
by digest. Needs npm.
"""

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).parent
PIP = (
    *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
    *("--only-binary", ":all:", "--require-hashes"),
)
NPM = ("npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts")
TIMEOUT_SECONDS = 600


def main() -> None:
    """Install both sets; the folder exists only if every step succeeded."""
    if shutil.which("npm") is None:
        raise SystemExit("no npm: the tests with rerankers of other projects will skip")
    folder = Path(sys.argv[1]).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        installed = Path(place) / "installed"
        venv.create(installed, with_pip=True)
        python, requirements = installed / "bin" / "python", HERE / "requirements.txt"
        run([str(python), *PIP, "-r", str(requirements)], installed)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, installed)
        run(NPM, installed)
        installed.rename(folder)


def run(command: list[str] | tuple[str, ...], folder: Path) -> None:
    """Run a command in a folder, and fail if it does."""
    subprocess.run(command, cwd=folder, check=True, timeout=TIMEOUT_SECONDS)


if __name__ == "__main__":
    main()
