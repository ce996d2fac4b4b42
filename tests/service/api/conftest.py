"""Fixtures of the routes' tests: a client of a server, and the calls that reach scoring."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from support.scoring_requests import record_calls
from support.servers import Served

from assay.scoring.service import ScoreCall
from assay.settings import Settings


@pytest.fixture
async def client(served: Served, scripted_settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server of the scripted model."""
    async with served(scripted_settings) as client:
        yield client


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[ScoreCall]:
    """The calls of the scoring service."""
    return record_calls(monkeypatch)
