"""The docs are true and complete: generated pages are fresh, and everything public is named."""

import ast
import re
import runpy
import subprocess

import pytest
from support.paths import ROOT

DOCS = ROOT / "docs"
GENERATED = runpy.run_path(str(DOCS / "generate.py"))
PAGES = GENERATED["pages"]()


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_fresh(name: str) -> None:
    assert (DOCS / "reference" / name).read_text(encoding="utf-8") == PAGES[name], "run `make docs`"


def test_the_readmes_table_of_models_is_what_the_cards_say() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert GENERATED["with_models"](readme) == readme, "run `make docs`"


def item_error_codes() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "models" / "assay_models").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Name("ItemError"), [ast.Constant(str(code)), *_]):
                    found.add(code)
    return found | {"item_failed"}


def test_every_item_error_is_documented() -> None:
    page = (DOCS / "reference" / "item-errors.md").read_text()
    codes = item_error_codes()
    assert codes
    assert not {code for code in codes if f"`{code}`" not in page}


def test_every_decision_record_has_its_five_parts() -> None:
    records = sorted((DOCS / "explanation" / "decisions").glob("[0-9]*.md"))
    assert records
    for record in records:
        text = record.read_text()
        for heading in ("Context", "Decision", "Consequences", "Alternatives", "References"):
            assert f"## {heading}" in text, record.name


BY_NAME = re.compile(r"""pip\s+install(?:\s+-\S+)*\s+['"\\]*assay(?![\w.-])""")
"""The installation of Assay by its name, which is on no index; `.[…]` in a checkout works."""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pip install 'assay[models]'", True),
        ("pip\ninstall -U assay", True),
        ("pip install -c constraints.txt '.[models]'", False),
        ("pip install ./clients", False),
    ],
)
def test_an_installation_by_name_is_found(text: str, found: bool) -> None:
    assert bool(BY_NAME.search(text)) is found


def test_no_page_and_no_message_installs_assay_by_name() -> None:
    command = ["git", "ls-files", "-z", "--", "*.md", "service", "models", "clients", "deploy"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name.endswith((".md", ".py", ".yaml"))]
    assert files
    texts = {path: path.read_text() for path in files if path.is_file()}
    assert [str(path.relative_to(ROOT)) for path in texts if BY_NAME.search(texts[path])] == []


def test_every_make_target_is_explained() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    declared = next(line for line in lines if line.startswith(".PHONY:")).split()[1:]
    assert len(declared) <= 13
    for target in declared:
        assert any(line.startswith(f"{target}:") and "## " in line for line in lines), target
