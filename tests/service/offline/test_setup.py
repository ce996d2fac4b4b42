"""The digest of all that decides a local model's numbers, by which a finished output is known."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from support.item_files import distinct_items, run, write_items

from assay.offline.local import LIBRARIES, setup_of
from assay.settings import Settings
from assay_models.base import Options
from assay_models.repository import ModelRepository

CARD = 'name = "mine"\nversion = 1\nfamily = "reference"\n'
ELSEWHERE = '[weights]\nsource = "folder"\npath = "../../trained"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a card of the torch-free family, with one file beside the card."""
    folder = tmp_path / "models" / "mine" / "1"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(CARD)
    (folder / "labels.txt").write_text("good")
    return folder


def setup(folder: Path) -> str:
    entry = ModelRepository([folder.parent.parent]).find("mine")
    return setup_of(Settings(), entry, Options("error", raw=False))


@pytest.mark.parametrize("target", ["someone@host.1234:56", ".#card.toml", "no/folder/"])
def test_a_link_to_nothing_in_the_folder_decides_nothing(folder: Path, target: str) -> None:
    before = setup(folder)
    (folder / ".#card.toml").symlink_to(target)
    assert setup(folder) == before
    source = write_items(folder.parent / "items.jsonl", distinct_items(2))
    output = folder.parent / "scores.jsonl"
    arguments = ("score", str(source), "--model", "mine", "-o", str(output))
    result = run(*arguments, ASSAY_REPOSITORY=str(folder.parent.parent))
    assert (result.exit_code, output.read_bytes().count(b"\n")) == (0, 2), result.stderr


def test_folders_that_link_to_each_other_are_read_once(folder: Path) -> None:
    names = [f"part-{number}" for number in range(8)]
    for name in names:
        (folder / name).mkdir()
        (folder / name / "weights.bin").write_bytes(b"12")
        for other in names:
            (folder / name / f"to-{other}").symlink_to(folder / other)
        (folder / name / "up").symlink_to(folder)
    before = setup(folder)
    assert setup(folder) == before
    (folder / "part-7" / "weights.bin").write_bytes(b"123")
    assert setup(folder) != before


def test_the_file_behind_a_link_decides(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "model.safetensors").write_bytes(b"1")
    before = setup(folder)
    (folder / "weights").symlink_to(tmp_path / "trained")
    linked = setup(folder)
    (tmp_path / "trained" / "model.safetensors").write_bytes(b"12")
    assert len({before, linked, setup(folder)}) == 3


def test_weights_in_another_folder_decide(folder: Path, tmp_path: Path) -> None:
    (folder / "card.toml").write_text(CARD + ELSEWHERE)
    absent = setup(folder)
    weights = tmp_path / "models" / "trained" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"1")
    present = setup(folder)
    os.utime(weights, ns=(1, 1))
    assert len({absent, present, setup(folder)}) == 3


def test_all_libraries_of_models_decide() -> None:
    required = metadata.requires("assay") or []
    names = {re.split(r"[<>=!~;\[ ]", text)[0] for text in required if "'models'" in text}
    assert names
    assert set(LIBRARIES) == names | {"tokenizers"}


def test_a_library_that_is_absent_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = setup(folder)

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert setup(folder) != before


def test_no_library_is_imported_for_its_version(folder: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from assay.offline.local import setup_of\nfrom assay.settings import Settings\n"
        "from assay_models.base import Options\n"
        "from assay_models.repository import ModelRepository\n"
        f"entry = ModelRepository([Path({str(folder.parent.parent)!r})]).find('mine')\n"
        "print(setup_of(Settings(), entry, Options('error', False)))\n"
        "print({'torch', 'transformers', 'tokenizers', 'tree_sitter'} & set(sys.modules))\n"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed.split() == [setup(folder), "set()"]
