"""A repository of two versions of the scripted model, and a server of the first one."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from support.servers import serving

from assay.app import create_app
from assay.settings import Settings

CARD = """
name = "{name}"
version = {version}
family = "{family}"
[options]
{options}
"""

AddCard = Callable[..., Path]


@pytest.fixture
def add_card(scripted_settings: Settings) -> AddCard:
    """A function that adds a card to the repository of the settings."""
    (root,) = scripted_settings.repository

    def add(name: str, version: int, *, family: str = "scripted", **options: Any) -> Path:
        folder = root / name / str(version)
        folder.mkdir(parents=True)
        lines = "\n".join(f"{key} = {value}" for key, value in options.items())
        text = CARD.format(name=name, version=version, family=family, options=lines)
        (folder / "card.toml").write_text(text.replace("True", "true"))
        return folder

    return add


@pytest.fixture
def app(scripted_settings: Settings, add_card: AddCard, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """An app that serves `scripted@1`; `scripted@2` is in its repository."""
    add_card("scripted", 2)
    settings = scripted_settings.model_copy(update={"models": ("scripted@1",), "runs": None})
    return create_app(settings)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the app, whose first model is ready."""
    async with serving(app) as client:
        yield client
