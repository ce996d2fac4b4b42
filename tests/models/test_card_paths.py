"""Paths on a card stay where the card is, and its folder has the names that it says."""

from pathlib import Path

import pytest

from assay_models.card import CardError
from assay_models.repository import (
    CardUnreadable,
    ModelNotFound,
    ModelRepository,
    path_inside,
    weight_names,
)

CARD = 'name = "mine"\nversion = 1\nfamily = "reference"\n'


def write_card(root: Path, folder: str = "mine/1", *, path: str = "") -> Path:
    target = root / folder
    target.mkdir(parents=True)
    weights = f'[weights]\nsource = "folder"\npath = "{path}"\n' if path else ""
    (target / "card.toml").write_text(CARD + weights)
    return target


@pytest.mark.parametrize("folder", ["other/1", "mine/2", "mine/01", "Mine/1"])
def test_a_card_in_a_folder_that_contradicts_it_is_refused(tmp_path: Path, folder: str) -> None:
    write_card(tmp_path, folder)
    text = r"is the card of mine@1: its folder must be mine/1"
    with pytest.raises(ModelNotFound, match=text):
        ModelRepository([tmp_path]).find("mine")
    with pytest.raises(CardError, match=text):
        ModelRepository([tmp_path]).cards()


def test_a_card_that_cannot_be_read_hides_no_other_and_no_older_version_is_taken_for_it(
    tmp_path: Path,
) -> None:
    write_card(tmp_path)
    newer = tmp_path / "mine" / "2"
    newer.mkdir()
    (newer / "card.toml").write_text('name = "mine"\nversion = "two"\n')
    repository = ModelRepository([tmp_path])
    assert repository.find("mine@1").card.id == "mine@1"
    for name in ("mine", "mine@2"):
        with pytest.raises(CardUnreadable, match=r"mine/2/card\.toml: version"):
            repository.find(name)


def test_the_folder_of_one_card_may_have_any_name(tmp_path: Path) -> None:
    folder = write_card(tmp_path, "anything")
    assert ModelRepository([folder]).find("mine").folder == folder


@pytest.mark.parametrize("path", ["../../..", "../../../other", "weights/../../../../other"])
def test_a_relative_path_of_weights_outside_the_repository_is_refused(
    tmp_path: Path, path: str
) -> None:
    write_card(tmp_path / "models", path=path)
    repository = ModelRepository([tmp_path / "models"])
    with pytest.raises(CardError, match=r"weights\.path .* leads out of the repository"):
        repository.locate(repository.find("mine"))


def test_paths_of_weights_inside_the_repository_and_absolute_ones_are_taken(tmp_path: Path) -> None:
    shared, own = tmp_path / "models" / "shared", tmp_path / "own"
    for path, folder in (("../../shared", shared), (str(own), own)):
        folder.mkdir(parents=True)
        card = tmp_path / "models" / "mine" / "1"
        if card.is_dir():
            (card / "card.toml").unlink()
            card.rmdir()
        write_card(tmp_path / "models", path=path)
        repository = ModelRepository([tmp_path / "models"])
        assert repository.locate(repository.find("mine")).weights == folder


@pytest.mark.parametrize("name", ["/etc/hostname", "../other.jinja", "a/../../b", ".."])
def test_a_file_outside_the_folder_of_its_card_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="leads out of"):
        path_inside(tmp_path, name)


def test_an_index_that_names_a_pickle_is_refused(tmp_path: Path) -> None:
    index = '{"weight_map": {"a": "pytorch_model.bin", "b": "b.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"names pytorch_model\.bin, no safetensors"):
        weight_names(tmp_path)
