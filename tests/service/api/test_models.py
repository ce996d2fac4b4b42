"""The list of models, in Assay's shape and in OpenAI's."""

from pathlib import Path

import pytest
from support.servers import Served

from assay.settings import Settings

CARD = """name = "mine"\nversion = {version}\nfamily = "reference"\n"""


@pytest.fixture
def two_versions(tmp_path: Path) -> Settings:
    for version in (1, 2):
        folder = tmp_path / "mine" / str(version)
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(CARD.format(version=version))
    return Settings(models=("mine@1", "mine@2"), repository=(tmp_path,))


async def test_the_list_has_every_model_in_both_shapes(
    served: Served, two_versions: Settings
) -> None:
    async with served(two_versions) as client:
        reply = (await client.get("/v1/models")).json()
    assert reply["object"] == "list"
    assert [model["id"] for model in reply["models"]] == ["mine@1", "mine@2"]
    for model, entry in zip(reply["models"], reply["data"], strict=True):
        assert set(entry) == {"id", "object", "created", "owned_by"}
        assert entry.items() <= model.items()


async def test_a_model_was_created_when_its_card_was_written(
    served: Served, two_versions: Settings
) -> None:
    card = two_versions.repository[0] / "mine" / "2" / "card.toml"
    async with served(two_versions) as client:
        detail = (await client.get("/v1/models/mine")).json()
    assert (detail["id"], detail["object"], detail["owned_by"]) == ("mine@2", "model", "assay")
    assert detail["created"] == int(card.stat().st_mtime)
