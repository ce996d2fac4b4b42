"""Probes: their paths, methods, keys, and what they say."""

from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from support.servers import Served

from assay.api.components import components_of
from assay.api.ops import LIVENESS_PATHS, PROBE_PATHS, READINESS_PATHS
from assay.app import create_app
from assay.settings import Settings

KEY = {"Authorization": "Bearer right"}
CARD = """
name = "broken"
version = 1
family = "reference"
example = { item = { text = "a", text_pair = "a" }, score = 9.0, tolerance = 0.1 }
"""


def keyed(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update={"api_keys": (SecretStr("right"),), **changes})


@pytest.fixture
def failing_settings(tmp_path: Path) -> Settings:
    """Settings of a server whose model cannot be loaded."""
    folder = tmp_path / "broken" / "1"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(CARD)
    return Settings(models=("broken",), repository=(tmp_path,))


def test_the_usual_paths_of_probes_exist() -> None:
    assert {"/healthz", "/livez", "/health", "/ping", "/readyz", "/startupz"} <= PROBE_PATHS


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", sorted(PROBE_PATHS))
async def test_a_probe_needs_no_key(
    served: Served, reference_settings: Settings, method: str, path: str
) -> None:
    async with served(keyed(reference_settings)) as client:
        for headers in ({}, KEY, {"X-API-Key": "wrong"}):
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == 200
            assert int(answer.headers["content-length"]) > 0
            assert bool(answer.content) is (method == "GET")


@pytest.mark.parametrize("path", sorted(PROBE_PATHS))
async def test_a_keyed_probe_needs_a_key(
    served: Served, reference_settings: Settings, path: str
) -> None:
    async with served(keyed(reference_settings, probes="keyed")) as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers={"X-API-Key": "wrong"})).status_code == 403
        assert (await client.get(path, headers=KEY)).status_code == 200


async def test_open_probes_open_no_other_route_and_no_other_method(
    served: Served, reference_settings: Settings
) -> None:
    async with served(keyed(reference_settings)) as client:
        for path in ("/metrics", "/v1/models", "/healthz/x", "/readyzz", "/version"):
            assert (await client.get(path)).status_code == 401, path
        for path in sorted(PROBE_PATHS):
            assert (await client.post(path)).status_code == 401, path


async def test_readiness_names_models_and_reasons_only_with_the_key(
    served: Served, failing_settings: Settings
) -> None:
    settings = keyed(failing_settings)
    async with served(settings) as client:
        for path in READINESS_PATHS:
            anonymous = await client.get(path)
            trusted = await client.get(path, headers=KEY)
            assert anonymous.status_code == trusted.status_code == 503
            assert anonymous.json()["models"] == {}
            assert trusted.json()["models"]["broken@1"].startswith("failed: ")


async def test_readiness_of_a_server_without_keys_names_reasons(
    served: Served, failing_settings: Settings
) -> None:
    async with served(failing_settings) as client:
        assert (await client.get("/startupz")).status_code == 503
        models = (await client.get("/readyz")).json()["models"]
    assert models["broken@1"].startswith("failed: ")


async def test_readiness_ends_when_a_shutdown_is_announced(reference_settings: Settings) -> None:
    app = create_app(reference_settings)
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://assay") as client,
    ):
        components = components_of(app)
        for model in components.service.models():
            await model.loaded()
        before = await client.get("/readyz")
        assert (before.status_code, before.json()["shutting_down"]) == (200, False)
        components.shutdown.is_announced = True
        after = await client.get("/readyz")
        assert (after.status_code, after.json()["shutting_down"]) == (503, True)
        assert after.json()["models"] == {"reference@1": "ready"}
        for path in LIVENESS_PATHS:
            assert (await client.get(path)).status_code == 200
        body = {"model": "reference", "items": [{"text": "a", "text_pair": "b"}]}
        assert (await client.post("/v1/score", json=body)).status_code == 200
