"""The files of the family `video_qpp`: those that are refused, their size and their statistics."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from assay_models.card import CardError, ModelCard
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelFiles, ModelRepository

pytestmark = pytest.mark.weights


def test_heads_of_another_shape_are_refused(entry: Any, files: ModelFiles, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(files.folder / "heads.safetensors")
    tensors["vatex.ngrams"] = tensors["vatex.ngrams"][:100].copy()
    save_file(tensors, tmp_path / "heads.safetensors")
    with pytest.raises(CardError, match="vatex"):
        family_of(entry.card).load(entry.card, ModelFiles(tmp_path, files.weights), Runtime())


def test_absent_heads_and_weights_are_refused(
    entry: Any, files: ModelFiles, tmp_path: Path
) -> None:
    with pytest.raises(CardError, match=r"heads\.safetensors"):
        family_of(entry.card).load(entry.card, ModelFiles(tmp_path, files.weights), Runtime())
    with pytest.raises(CardError, match=r"tokenizer\.json"):
        family_of(entry.card).load(entry.card, ModelFiles(files.folder, tmp_path), Runtime())
    with pytest.raises(CardError, match="weights"):
        family_of(entry.card).load(entry.card, ModelFiles(files.folder, None), Runtime())


def test_a_changed_file_is_refused_by_its_digest(entry: Any, tmp_path: Path) -> None:
    folder = tmp_path / "video-qpp" / "2"
    shutil.copytree(entry.folder, folder)
    with (folder / "heads.safetensors").open("ab") as heads:
        heads.write(b"\0")
    repository = ModelRepository([tmp_path])
    with pytest.raises(CardError, match=r"heads\.safetensors"):
        repository.locate(repository.find("video-qpp@2"))


def test_weights_in_git_stay_small(entry: Any) -> None:
    size = sum(path.stat().st_size for path in entry.folder.glob("*.safetensors"))
    assert 0 < size <= 11 * 2**20


def test_the_card_has_the_reference_statistics(entry: Any) -> None:
    card: ModelCard = entry.card
    assert card.reference is not None
    values = [card.reference.quantiles[name] for name in sorted(card.reference.quantiles)]
    assert values == sorted(values)
    assert json.loads((entry.folder / "reference.json").read_text())["n"] == card.reference.n
