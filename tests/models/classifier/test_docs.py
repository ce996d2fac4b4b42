"""The page on serving a checkpoint names every option, and its cards are valid."""

import re
import tomllib
from pathlib import Path

import pytest
from support.checkpoints import build_checkpoint, load_classifier, save_adapter
from support.paths import DOCS

from assay_models.card import ModelCard, read_card
from assay_models.families.classifier.options import ClassifierOptions
from assay_models.families.code.model import CodeOptions
from assay_models.families.sequence_classifier import SequenceClassifierOptions

pytestmark = pytest.mark.weights

PAGE = DOCS / "how-to" / "serve-your-own-checkpoint.md"
TEXT = PAGE.read_text(encoding="utf-8")
CARDS = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


def test_the_page_has_a_row_for_every_option() -> None:
    section = TEXT.partition("## Options")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert rows == {*SequenceClassifierOptions.model_fields, *CodeOptions.model_fields}
    assert rows > set(ClassifierOptions.model_fields)


@pytest.mark.parametrize("toml", CARDS)
def test_the_cards_on_the_page_are_valid_and_shorter_than_ten_lines(toml: str) -> None:
    card = ModelCard.model_validate(tomllib.loads(toml))
    assert card.options_as(SequenceClassifierOptions)
    assert len(toml.splitlines()) < 10


def test_the_cards_of_a_folder_and_of_an_adapter_load(tmp_path: Path) -> None:
    folder, adapter = (
        next(toml for toml in CARDS if name in toml) for name in ('"my-rm"', '"my-lora-rm"')
    )
    build_checkpoint("llama", tmp_path, config={"max_position_embeddings": 4096})
    (tmp_path / "card.toml").write_text(folder)
    assert read_card(tmp_path).name == "my-rm"
    assert load_classifier(tmp_path, model="my-rm").labels == ("LABEL_0",)
    save_adapter(tmp_path)
    (tmp_path / "weights").rename(tmp_path / "base")
    (tmp_path / "card.toml").write_text(adapter)
    assert load_classifier(tmp_path, model="my-lora-rm").labels == ("LABEL_0",)
