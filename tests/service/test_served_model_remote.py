"""A model with an asynchronous predict passes its self-test before it is served."""

from pathlib import Path

import pytest
from support.doubles import SCRIPTED_CARD
from support.servers import Served

from assay.settings import Settings
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Family


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    family = Family(
        "support.doubles", "RemoteModel", item=TextItem, candidate="text", probe={"text": "probe"}
    )
    monkeypatch.setitem(FAMILIES, "remote", family)
    return tmp_path


def settings_with(folder: Path, example: str) -> Settings:
    card = SCRIPTED_CARD.replace("scripted", "remote")
    (folder / "card.toml").write_text(f"{card}\n{example}")
    return Settings(models=("remote",), repository=(folder,))


async def test_the_example_is_computed_before_the_model_is_ready(
    served: Served, remote: Path
) -> None:
    settings = settings_with(remote, 'example = { item = { text = "four" }, score = 4 }')
    async with served(settings) as client:
        detail = (await client.get("/v1/models/remote")).json()
        assert detail["state"] == "ready"
        assert detail["parity"] == {"expected": 4, "got": 4, "tolerance": 0.001, "passed": True}
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ('example = { item = { text = "four" }, score = 5 }', "scores 4, the card says 5"),
        ('example = { item = { text = "poison" }, score = 6 }', "no score: no reply"),
    ],
)
async def test_a_model_with_a_wrong_example_is_not_served(
    served: Served, remote: Path, example: str, reason: str
) -> None:
    async with served(settings_with(remote, example)) as client:
        detail = (await client.get("/v1/models/remote")).json()
        assert detail["state"] == "failed"
        assert reason in detail["failure"]
        body = {"model": "remote", "items": [{"text": "a"}]}
        assert (await client.post("/v1/score", json=body)).status_code == 503


async def test_an_item_that_fails_has_the_models_own_error(served: Served, remote: Path) -> None:
    async with served(settings_with(remote, "")) as client:
        items = [{"text": "a"}, {"text": "poison"}]
        answer = await client.post("/v1/score", json={"model": "remote", "items": items})
        good, bad = answer.json()["results"]
        assert (good["score"], bad["score"]) == (1.0, None)
        assert bad["error"] == {"code": "unreachable", "detail": "no reply"}
