"""Weights are in this process's own memory: no file on disk changes a score or ends the process."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import (
    build_checkpoint,
    build_tokenizer,
    load_classifier,
    load_model,
    logits_of,
    save_adapter,
    write_card,
)
from support.tiers import only_nightly
from support.weight_files import CHANGED, FILE, save_changed, write_gguf
from transformers import AutoModelForSequenceClassification

from assay_models.card import CardError
from assay_models.families.classifier import checkpoint as module
from assay_models.families.classifier.weight_files import read_tensors

Build = Callable[[Path], object]


def _sharded(folder: Path) -> None:
    build_checkpoint("qwen3", folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "weights")
    (folder / "weights" / "model.safetensors").unlink()
    model.save_pretrained(folder / "weights", max_shard_size="20KB")
    assert len(list((folder / "weights").glob("*.safetensors"))) > 1


def _with_adapter(folder: Path) -> None:
    build_checkpoint("qwen3", folder, options={"adapter": "adapter", "num_labels": 1})
    save_adapter(folder)


def _gguf(folder: Path) -> None:
    (folder / "weights").mkdir(parents=True)
    write_gguf(folder / "weights" / FILE)
    build_tokenizer("llama").save_pretrained(folder / "weights")
    options = {"gguf_file": FILE, "num_labels": 1, "adapter": "adapter"}
    base = AutoModelForSequenceClassification.from_pretrained(
        folder / "weights", gguf_file=FILE, num_labels=1
    )
    save_adapter(folder, base=base)
    write_card(folder, options=options)


CHECKPOINTS: dict[str, Build] = {
    "fp32": lambda folder: build_checkpoint("bert", folder),
    "bf16": lambda folder: build_checkpoint("llama", folder, dtype=torch.bfloat16),
    "shards": _sharded,
    "an adapter": _with_adapter,
    "changed tensors": lambda folder: save_changed(
        build_checkpoint("bert", folder, with_head=False, options=CHANGED)
    ),
    "a GGUF": _gguf,
}
WEIGHTS = (".safetensors", ".gguf")


def mapped(folder: Path) -> list[str]:
    """Return the lines of this process's memory map that name a file in a folder."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if str(folder) in line]


@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_files_written_or_cut_under_a_loaded_model_change_no_bit(
    tmp_path: Path, kind: str, dtype: str
) -> None:
    CHECKPOINTS[kind](tmp_path)
    classifier = load_classifier(tmp_path, dtype)
    assert mapped(tmp_path) == []
    before = logits_of(classifier)
    files = [path for path in tmp_path.rglob("*") if path.suffix in WEIGHTS]
    for path in files:
        path.write_bytes(bytes(path.stat().st_size))
    assert logits_of(classifier) == before
    for path in files:
        path.write_bytes(b"")
    assert logits_of(classifier) == before


def test_tensors_are_read_as_the_library_reads_them(tmp_path: Path) -> None:
    state = {
        "matrix": torch.randn(300, 7),
        "half": torch.randn(5, dtype=torch.bfloat16),
        "number": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "bytes": torch.arange(9, dtype=torch.int8),
    }
    save_file(state, tmp_path / "a.safetensors")
    read, expected = read_tensors(tmp_path / "a.safetensors"), load_file(tmp_path / "a.safetensors")
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_file_that_changes_while_the_model_loads_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    build_checkpoint("bert", tmp_path)
    load_tokenizer = module.Checkpoint.load_tokenizer

    def change_and_load(checkpoint: module.Checkpoint) -> object:
        with (tmp_path / "weights" / name).open("ab") as file:
            file.write(b" ")
        return load_tokenizer(checkpoint)

    monkeypatch.setattr(module.Checkpoint, "load_tokenizer", change_and_load)
    with pytest.raises(CardError, match=rf"{name} was changed while it was read"):
        load_model(tmp_path)


PROGRAM = """
import sys
from pathlib import Path
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository, embedded_root
repository = ModelRepository([embedded_root()])
entry = repository.find(sys.argv[1])
files = repository.locate(entry)
model = family_of(entry.card).load(entry.card, files, Runtime())
lines = Path("/proc/self/maps").read_text().splitlines()
folders = [str(folder) for folder in (files.folder, files.weights) if folder is not None]
print(*[line for line in lines if any(folder in line for folder in folders)], sep="\\n", end="")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["nli-small", pytest.param("code", marks=only_nightly), "video-qpp", "retrieval-qpp"],
)
def test_an_embedded_model_maps_none_of_its_files(name: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, name], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
