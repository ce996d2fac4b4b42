"""The page on serving a checkpoint: its folder and card are served, and its request is scored."""

import json
import re
from pathlib import Path

import httpx2
import pytest
from support.checkpoints import build_checkpoint
from support.paths import DOCS
from support.servers import Served

from assay.settings import Settings

from .blocks import blocks_of

PAGE = DOCS / "how-to" / "serve-your-own-checkpoint.md"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkpoint in the folder that the page draws, with the page's first card."""
    folder = tmp_path / "my-rm" / "1"
    build_checkpoint("qwen3", folder, config={"max_position_embeddings": 4096})
    card = next(block for block in blocks_of(PAGE) if block.language == "toml")
    (folder / "card.toml").write_text(card.text)
    return tmp_path


async def test_the_pages_request_is_scored(served: Served, repository: Path) -> None:
    (command,) = [block.text for block in blocks_of(PAGE) if "curl" in block.text]
    body = re.search(r"-d '(.*?)'", command, re.DOTALL)
    assert body is not None
    async with served(Settings(models=("my-rm",), repository=(repository,))) as client:
        reply = await client.post("/v1/score", json=json.loads(body[1]))
    assert reply.status_code == httpx2.codes.OK, reply.text
    (result,) = reply.json()["results"]
    assert (result["status"], result["source"]) == ("ok", "computed")
    assert result["score"] == result["raw"] != 0
