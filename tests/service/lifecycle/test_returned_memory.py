"""Unloading returns the memory of a model: that of a real process stays flat over many loads."""

from pathlib import Path

import httpx2
import psutil
import pytest
from support.checkpoints import build_checkpoint
from support.processes import serving
from support.tiers import only_nightly

CYCLES = 10
MIB = 2**20
CONFIG = {
    "hidden_size": 640,
    "intermediate_size": 2560,
    "num_hidden_layers": 10,
    "num_attention_heads": 10,
}


@only_nightly
@pytest.mark.timeout(1800)
def test_memory_of_ten_loads_and_unloads_is_flat(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path / "tiny" / "1", config=CONFIG)
    size = (folder / "weights" / "model.safetensors").stat().st_size
    assert size > 190 * MIB
    items = [{"text": "some words " * number} for number in range(1, 20)]
    with (
        serving("--port", "0", ASSAY_REPOSITORY=str(tmp_path)) as server,
        httpx2.Client(base_url=server.url, timeout=600) as client,
    ):
        process = psutil.Process(server.process.pid)
        loaded: list[int] = []
        unloaded: list[int] = []
        for _ in range(CYCLES):
            reply = client.post("/v1/models?wait=300", json={"model": "tiny@1"})
            assert reply.json()["state"] == "ready", reply.text
            scored = client.post("/v1/score", json={"model": "tiny@1", "items": items})
            assert scored.status_code == 200
            loaded.append(process.memory_info().rss)
            reply = client.delete("/v1/models/tiny@1?wait=300")
            assert reply.json()["state"] == "unloaded"
            unloaded.append(process.memory_info().rss)
    # The first load imports torch, which stays.
    assert all(up - down > size for up, down in zip(loaded, unloaded, strict=True))
    assert max(unloaded[1:]) - unloaded[0] < size / 2
