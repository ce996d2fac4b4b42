"""The ordered steps of each recipe, each a command that can also be run on its own.

A step writes into a work folder only: the released weights stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TWO_PROCESSES = ("torch.distributed.run", "--nproc-per-node", "2", "-m")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a recipe: its name, its purpose, and the arguments after `python -m`.

    `{data}` and `{work}` in the arguments stand for the data and the work folder.
    """

    name: str
    purpose: str
    arguments: tuple[str, ...]

    def command(self, data: Path, work: Path) -> list[str]:
        """Return the arguments of Python for these folders."""
        return ["-m", *(part.format(data=data, work=work) for part in self.arguments)]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe: the folders that it reads below the data folder, and its steps in order."""

    data_folders: tuple[str, ...]
    steps: tuple[Step, ...]


def _step(name: str, purpose: str, module: str, arguments: str) -> Step:
    return Step(name, purpose, (*module.split(), *arguments.split()))


def _package(name: str, model: str, trained: str) -> Step:
    arguments = f"--model {model} --trained {trained} --out {{work}}/models"
    return _step(name, "make a folder that can be served", "recipes.package_model", arguments)


def _evaluate_nli(name: str, purpose: str, model: str, options: str = "") -> Step:
    arguments = f"--data {{data}} --repository {{work}}/models --model {model} {options}"
    return _step(name, purpose, "recipes.nli.evaluate", arguments)


CODE = Recipe(
    data_folders=("code",),
    steps=(
        Step(
            "train",
            "train the adapter",
            (*TWO_PROCESSES, "recipes.code.train", "--data", "{data}", "--out", "{work}"),
        ),
        _step(
            "surprisal-weight",
            "print pair accuracies for several weights of the surprisal",
            "recipes.code.surprisal_weight",
            "--data {data} --adapter {work}/adapter --threads 2",
        ),
        _step(
            "release",
            "store the adapter in half precision, without local paths",
            "recipes.code.release",
            "--adapter {work}/adapter --out {work}/release",
        ),
        _package("package", "code@2", "{work}/release"),
        _step(
            "calibrate",
            "fit and print the table of confidences",
            "recipes.code.calibrate",
            "--data {data} --repository {work}/models",
        ),
        _step(
            "evaluate",
            "measure on held-out pairs",
            "recipes.code.evaluate",
            "--data {data} --repository {work}/models",
        ),
    ),
)
NLI = Recipe(
    data_folders=("nli",),
    steps=(
        _step("train", "train `nli`", "recipes.nli.train", "--data {data} --out {work}"),
        _package("package", "nli@2", "{work}"),
        _evaluate_nli("calibrate", "fit and print the temperature", "nli@2", "--fit"),
        _evaluate_nli("evaluate", "measure on held-out pairs and diagnostics", "nli@2"),
        _step(
            "train-small",
            "train `nli-small` by labels and by the released `nli@2` as teacher",
            "recipes.nli.distil",
            "--data {data} --out {work}/small",
        ),
        _package("package-small", "nli-small@1", "{work}/small"),
        _evaluate_nli("calibrate-small", "fit and print the temperature", "nli-small@1", "--fit"),
        _evaluate_nli("evaluate-small", "measure on held-out pairs and diagnostics", "nli-small@1"),
    ),
)
VIDEO_QPP = Recipe(
    data_folders=("vqpp",),
    steps=(
        _step(
            "train",
            "embed the queries, choose the settings, fit the heads",
            "recipes.video_qpp.train",
            "--data {data} --out {work}/heads --cache {work}",
        ),
        _package("package", "video-qpp@2", "{work}/heads"),
        _step(
            "evaluate",
            "measure on the official tests",
            "recipes.video_qpp.evaluate",
            "--data {data} --repository {work}/models",
        ),
    ),
)
RECIPES: Mapping[str, Recipe] = {"code": CODE, "nli": NLI, "video_qpp": VIDEO_QPP}
