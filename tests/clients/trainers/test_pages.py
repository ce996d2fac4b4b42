"""Each trainer has a module, a page and an example, which name the same versions."""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys

import pytest
from support.paths import ROOT

from assay_client import trainers

PAGES = ROOT / "docs" / "how-to" / "trainers"
EXAMPLES = ROOT / "clients" / "examples"
MODULES = [
    module.name for module in pkgutil.iter_modules(trainers.__path__) if module.name[0] != "_"
]
PAGE_OF = {"axolotl": "trl", "ms_swift": "ms-swift", "query_rewriting": "query-rewriting"}
PAGE_OF |= {"grounded_answers": "grounded-answers"}
VERSION = re.compile(r"\b(?:[0-9a-f]{8}|[0-9]+\.[0-9]+\.[0-9]+)\b")


def test_all_trainer_modules_are_found() -> None:
    assert len(MODULES) == 12


@pytest.mark.parametrize("name", MODULES)
def test_the_page_names_the_module_and_its_versions(name: str) -> None:
    page = (PAGES / f"{PAGE_OF.get(name, name)}.md").read_text()
    docstring = importlib.import_module(f"assay_client.trainers.{name}").__doc__ or ""
    versions = VERSION.findall(docstring)
    assert f"assay_client.trainers.{name}" in page
    assert "Checked against the source of" in docstring
    assert versions
    assert not [version for version in versions if version not in page]


@pytest.mark.parametrize("name", MODULES)
def test_each_module_has_an_example(name: str) -> None:
    files = list((EXAMPLES / name).iterdir())
    assert any(f"assay_client.trainers.{name}" in path.read_text() for path in files)
    for path in files:
        if path.suffix == ".py":
            _check_imports(ast.parse(path.read_text()))


def _check_imports(tree: ast.Module) -> None:
    """Check that the names which an example imports of ours exist."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("assay_client"):
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_page_names_all_settings() -> None:
    page = (PAGES / "functions.md").read_text()
    assert not [name for name in trainers.Settings.__dataclass_fields__ if f"`{name}`" not in page]


def test_importing_all_modules_imports_no_other_package() -> None:
    """Check that not even the HTTP library is imported, which the first call imports."""
    names = ["assay_client"] + [f"assay_client.trainers.{name}" for name in MODULES]
    program = f"import json, sys\n{chr(10).join('import ' + name for name in names)}\n"
    program += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    path = f"import sys; sys.path[:0] = {sys.path!r}\n"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", path + program], capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert set(json.loads(ran.stdout)) - sys.stdlib_module_names == {"__main__", "assay_client"}
