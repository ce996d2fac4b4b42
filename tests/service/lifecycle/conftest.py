"""A repository of two versions of the scripted model, and a server of the first one."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx2
import pytest
from fastapi import FastAPI
from support.doubles import Gate, ScriptedModel
from support.servers import serving

from assay.app import create_app
from assay.settings import Settings
from assay_models.base import Input, Raw
from assay_models.card import ModelCard
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Family
from assay_models.repository import ModelFiles

CARD = """
name = "{name}"
version = {version}
family = "{family}"
{options}
"""


class AddCard(Protocol):
    def __call__(
        self, name: str, version: int, *, family: str = ..., options: str = ...
    ) -> Path: ...


@dataclass
class Gates:
    """Gates of the second scripted family: its loads, its forward passes, and how these fail."""

    load: Gate = field(default_factory=Gate)
    predict: Gate = field(default_factory=Gate)
    failure: Literal["raise", "nan"] | None = None


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gates]:
    """The gates of the family `gated`, open at first; they are opened at the end."""
    gates = Gates()
    gates.load.open.set()
    gates.predict.open.set()

    class GatedModel(ScriptedModel):
        __slots__ = ()

        @classmethod
        def load(cls, card: ModelCard, files: ModelFiles, runtime: Any) -> "GatedModel":
            gates.load([])
            ScriptedModel.load(card, files, runtime)
            return cls(f"sha256:{card.id}")

        def predict(self, inputs: Sequence[Input]) -> list[Raw]:
            gates.predict(inputs)
            if gates.failure == "raise":
                raise RuntimeError("scripted")
            if gates.failure == "nan":
                return [(float("nan"),) for _ in inputs]
            return [(2 * raw,) for (raw,) in super().predict(inputs)]

    module = type("module", (), {"GatedModel": GatedModel})
    family = Family("gated", "GatedModel", item=TextItem, candidate="text", probe={"text": "probe"})
    monkeypatch.setitem(FAMILIES, "gated", family)
    monkeypatch.setitem(__import__("sys").modules, "gated", module)
    yield gates
    gates.load.open.set()
    gates.predict.open.set()


@pytest.fixture
def add_card(scripted_settings: Settings) -> AddCard:
    """A function that adds a card to the repository of the settings."""
    (root,) = scripted_settings.repository

    def add(name: str, version: int, *, family: str = "gated", options: str = "") -> Path:
        folder = root / name / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        text = CARD.format(name=name, version=version, family=family, options=options)
        (folder / "card.toml").write_text(text)
        return folder

    return add


@pytest.fixture
def app(scripted_settings: Settings, add_card: AddCard, gates: Gates, tmp_path: Path) -> FastAPI:
    """An app that serves `scripted@1`, which scores a text by its length.

    Its repository has `scripted@2` too, which scores it by twice its length.
    """
    add_card("scripted", 2)
    changes = {"models": ("scripted@1",), "runs": tmp_path / "runs.db"}
    return create_app(scripted_settings.model_copy(update=changes))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the app, whose first model is ready."""
    async with serving(app) as client:
        yield client
