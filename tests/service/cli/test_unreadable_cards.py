"""A card that cannot be read: it stops a server that is to serve its model, and no other."""

from pathlib import Path

import pytest
from support.item_files import run

from assay.app import create_app
from assay.settings import read_settings

WORDS = 'name = "words"\nversion = 1\nfamily = "reference"\n'


def write_card(root: Path, name: str, text: str) -> Path:
    folder = root / name / "1"
    folder.mkdir(parents=True)
    path = folder / "card.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("models", ["words,broken", ""])
def test_serve_with_a_card_that_cannot_be_read_names_its_field_and_exits(
    tmp_path: Path, models: str
) -> None:
    write_card(tmp_path, "words", WORDS)
    path = write_card(tmp_path, "broken", 'name = "broken"\nversion = "one"\n')
    result = run("serve", ASSAY_REPOSITORY=str(tmp_path), ASSAY_MODELS=models)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path}: version: ")
    assert "hint: mend the card, or " in result.stderr


def test_a_card_that_cannot_be_read_stops_no_other_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_card(tmp_path, "words", WORDS)
    path = write_card(tmp_path, "broken", "name = ")
    create_app(read_settings({"ASSAY_REPOSITORY": str(tmp_path), "ASSAY_MODELS": "words"}))
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"no readable card: {path} is not valid TOML" in warning.getMessage()
