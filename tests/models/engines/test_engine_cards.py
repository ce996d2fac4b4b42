"""The section `[engine]` of a card, and the file with its key."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.engine_cards import engine_card

from assay_models.card import CardError, ModelCard, read_card
from assay_models.engines.client import open_engine

CARD = """
name = "mine"
version = 1
family = "reference"

[engine]
protocol = "vllm"
urls = ["http://engine-0:8000/", "https://gateway.example/engine-1"]
model = "rm"
"""


def test_card_with_an_engine_is_read(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD)
    engine = read_card(tmp_path).engine
    assert engine is not None
    assert engine.urls == ("http://engine-0:8000", "https://gateway.example/engine-1")
    assert (engine.protocol, engine.model, engine.api_key_file) == ("vllm", "rm", "")


@pytest.mark.parametrize(
    "urls",
    [
        (),
        ("engine:8000",),
        ("ftp://engine:8000",),
        ("http://",),
        ("http://engine:port",),
        ("http://user:secret@engine:8000",),
        ("http://secret@engine:8000",),
        ("http://engine:8000?key=secret",),
        ("http://engine:8000/#secret",),
        ("http://engine :8000",),
        ("http://engine\n:8000",),
        ("http://a:1", "http://a:1/"),
        ("http://[::1",),
    ],
)
def test_card_with_a_url_that_cannot_be_used_is_refused_and_shows_no_password(
    urls: tuple[str, ...],
) -> None:
    with pytest.raises(ValidationError) as raised:
        engine_card("vllm", *urls)
    messages = [problem["msg"] for problem in raised.value.errors()]
    assert messages
    assert not any("secret" in message for message in messages)


@pytest.mark.parametrize(("canary", "room"), [("call", 512 + 32), ("schedule", 512)])
def test_card_whose_longest_row_fits_no_call_is_refused(canary: str, room: int) -> None:
    engine_card("vllm", "http://engine:8000", canary=canary, max_call_tokens=room)
    with pytest.raises(ValidationError, match=r"raise engine\.max_call_tokens"):
        engine_card("vllm", "http://engine:8000", canary=canary, max_call_tokens=room - 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_call_items": 0},
        {"max_calls": 0},
        {"retries": -1},
        {"timeout_seconds": 0},
        {"timeout_seconds": float("inf")},
        {"unknown": 1},
    ],
)
def test_card_with_a_wrong_field_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        engine_card("vllm", "http://a:1", **fields)


def test_card_with_another_protocol_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD.replace("vllm", "openai"))
    with pytest.raises(CardError, match=r"engine\.protocol"):
        read_card(tmp_path)


@pytest.mark.parametrize("model", ["", "Code", "code/../secrets", "code@", "a?b"])
def test_card_of_another_assay_needs_the_name_of_a_model(model: str) -> None:
    with pytest.raises(ValidationError, match="a model of the other Assay"):
        engine_card("assay", "http://a:1", model=model)


def test_card_without_an_engine_opens_none() -> None:
    card = ModelCard(name="mine", version=1, family="reference")
    with pytest.raises(CardError, match="no section"):
        open_engine(card)


@pytest.mark.parametrize("key", ["", "  \n", "two words", "schlüssel", "a\nb", "a\0b"])
def test_file_without_one_key_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "key"
    path.write_text(key, encoding="utf-8")
    with pytest.raises(CardError, match="one key"):
        open_engine(engine_card("vllm", "http://a:1", api_key_file=str(path)))


def test_file_of_a_key_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="No such file"):
        open_engine(engine_card("vllm", "http://a:1", api_key_file=str(tmp_path / "none")))
