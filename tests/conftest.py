"""Fixtures that all tests share: settings, a served app, a real Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from support.doubles import SCRIPTED_CARD
from support.postgres import PostgresServer
from support.postgres import running as running_postgres
from support.servers import RedisServer, Served, serving

from assay.app import create_app
from assay.settings import Settings
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Family

# No test asserts a time, on a busy machine least of all.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def isolated_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A state folder of the tests, where the servers that they start keep their runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def served() -> Served:
    """A function that serves an app: `async with served(settings) as client`."""
    return lambda settings: serving(create_app(settings))


@pytest.fixture
def reference_settings() -> Settings:
    return Settings(models=("reference",))


@pytest.fixture
def scripted_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that serve the scripted model from a repository of its own."""
    family = Family(
        "support.doubles", "ScriptedModel", item=TextItem, candidate="text", probe={"text": "probe"}
    )
    monkeypatch.setitem(FAMILIES, "scripted", family)
    folder = tmp_path / "scripted" / "1"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(SCRIPTED_CARD)
    return Settings(models=("scripted",), repository=(tmp_path,))


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of an empty database."""
    return postgres_server.new_database()
