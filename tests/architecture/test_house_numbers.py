"""The rules of the house that can be counted."""

import ast
import re
from pathlib import Path
from statistics import median

import pytest
from support.paths import ROOT

ROOMS = ("service/assay", "models/assay_models", "models/assay_monitors", "clients/assay_client")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
RECIPES = sorted((ROOT / "models" / "recipes").rglob("*.py"))
OTHERS = sorted(
    path for room in ("tests", "benchmarks", "requirements") for path in (ROOT / room).rglob("*.py")
)


def function_lengths(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text())
    return [
        ((node.end_lineno or 0) - node.lineno + 1, f"{path.name}:{node.name}")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@pytest.mark.parametrize(
    "path", FILES + RECIPES + OTHERS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_file_is_one_room(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_functions_are_short() -> None:
    lengths = sorted(found for path in FILES + RECIPES for found in function_lengths(path))
    assert median([length for length, _ in lengths]) <= 8
    assert lengths[int(len(lengths) * 0.95)][0] <= 30
    assert lengths[-1][0] <= 60, lengths[-5:]


@pytest.mark.parametrize("path", FILES + RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_constructors_take_at_most_four_positional_arguments(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            positional = [*node.args.posonlyargs, *node.args.args][1:]
            assert len(positional) <= 4, f"{path.name}:{node.lineno}: make the others keyword-only"


def test_the_model_interface_stays_small() -> None:
    interface = ROOT / "models" / "assay_models" / "base.py"
    assert len(interface.read_text().splitlines()) <= 135


def test_broad_excepts_are_few_and_have_a_reason() -> None:
    found = [
        (path, line)
        for path in FILES + RECIPES
        for line in path.read_text().splitlines()
        if re.search(r"except\s*(\(?\s*(Base)?Exception\b|:)", line)
    ]
    assert len(found) <= 3
    for path, line in found:
        assert re.search(r"noqa: BLE001 \w+", line), f"{path}: give the reason: {line}"


def test_no_drawer_for_everything() -> None:
    names = {path.stem for path in FILES + RECIPES}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


def test_the_versions_agree() -> None:
    import assay
    import assay_client

    assert assay.__version__ == assay_client.__version__
