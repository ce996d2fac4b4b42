"""Servers of a scripted model for the dialects' tests."""

import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from support.doubles import ScriptedModel
from support.servers import Served

from assay.app import create_app
from assay.settings import Settings


@pytest.fixture
async def scripted(
    served: Served, scripted_settings: Settings
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server whose model scores the number of letters."""
    async with served(scripted_settings) as client:
        yield client


@pytest.fixture
async def loading(
    scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server whose model is still loading."""
    done, load = threading.Event(), ScriptedModel.load

    def slow(cls: type[ScriptedModel], *parts: Any) -> ScriptedModel:
        assert done.wait(30)
        return load(*parts)

    monkeypatch.setattr(ScriptedModel, "load", classmethod(slow))
    app = create_app(scripted_settings)
    transport = httpx2.ASGITransport(app=app)
    async with app.router.lifespan_context(app):
        async with httpx2.AsyncClient(transport=transport, base_url="http://assay") as client:
            yield client
        done.set()
