"""Write the locked requirements: every package that is installed, with the digests of its wheels,
and the server's bill of materials.

    make lock

Each file is one set: `build` packages the project, `server` runs it, `ray` runs it on Ray Serve,
`torch` or `torch-cpu` comes beside it, `dev` is all that tests need. The versions are those of
`constraints.txt`; a package that it does not name gets the newest. Needs uv, and the package index.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PROJECTS = ("pyproject.toml", "clients/pyproject.toml")
SERVER = tuple(f"--extra={name}" for name in ("answers", "models", "postgres", "traces"))
SETS: dict[str, tuple[str, ...]] = {
    "build": ("requirements/build.in",),
    "server": (*PROJECTS, *SERVER),
    "ray": (*PROJECTS, *SERVER, "--extra", "ray"),
    "dev": (
        *("requirements/build.in", *PROJECTS),
        *(*SERVER, "--extra", "dev", "--extra", "trainers"),
    ),
}
THIRD_PARTY = "tests/trainers/third_party/requirements"
# PyTorch, with the libraries that its build for Linux on the usual index needs. It is apart from
# the others, because its CPU builds for Linux are on an index of their own.
TORCH = re.compile(r"torch|triton|(nvidia|cuda)-[a-z0-9-]+")
OPTIONS = (
    *("--universal", "--python-version", "3.11", "--generate-hashes", "--only-binary", ":all:"),
    *("--no-header", "--no-annotate", "--quiet", "--no-emit-package", "assay-client"),
    *("--no-emit-package", "pip"),
)
HEADER = "# Written by `make lock`.\n"


def main() -> None:
    """Write all locked requirements."""
    torch: dict[str, None] = {}
    for name, arguments in SETS.items():
        entries = compiled((*arguments, "-c", "constraints.txt"))
        torch.update(dict.fromkeys(entry for entry in entries if is_of_torch(entry)))
        write(HERE / f"{name}.txt", [entry for entry in entries if not is_of_torch(entry)])
    write(HERE / "torch.txt", list(torch))
    write_bill()
    write(ROOT / f"{THIRD_PARTY}.txt", compiled((f"{THIRD_PARTY}.in",)))


def write_bill() -> None:
    """Write the server's bill of materials in CycloneDX: its packages, PyTorch and the weights."""
    files = (HERE / "torch-cpu.txt", HERE / "server.txt", ROOT / "weights.txt")
    listed = "".join(path.read_text(encoding="utf-8") for path in files)
    options = ("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible")
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", *options]
    place = ("-o", str(HERE / "sbom.json"), "-")
    subprocess.run([*command, *place], input=listed, text=True, check=True)


def is_of_torch(entry: str) -> bool:
    """Return whether a requirement is of PyTorch's set."""
    return TORCH.fullmatch(entry.partition("==")[0]) is not None


def compiled(arguments: Sequence[str]) -> list[str]:
    """Return the locked requirements: each its version, marker and its wheels' digests.

    A package may have several versions, for different versions of Python.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", *OPTIONS, *arguments]
    text = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return re.split(r"\n(?=[a-zA-Z0-9])", text.strip())


def write(path: Path, entries: Sequence[str]) -> None:
    """Write one file of locked requirements."""
    path.write_text(HEADER + "\n".join(entries) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
