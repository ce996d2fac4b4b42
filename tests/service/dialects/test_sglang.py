"""SGLang: its native /classify of autumn 2026, and what verl (1dda039b) reads."""

import base64
import struct

import httpx2
import pytest


async def test_a_single_text_gets_one_entry_and_no_list(scripted: httpx2.AsyncClient) -> None:
    reply = (await scripted.post("/classify", json={"text": "four"})).json()
    assert reply["embedding"] == [4.0]
    assert reply["meta_info"]["prompt_tokens"] == 4


async def test_the_bodys_fields_decide_the_dialect_of_classify(
    scripted: httpx2.AsyncClient,
) -> None:
    sglang = await scripted.post("/classify", json={"text": ["ab"]})
    assert sglang.json()[0]["embedding"] == [2.0]
    vllm = await scripted.post("/classify", json={"input": ["ab"]})
    assert vllm.json()["data"][0]["probs"] == [2.0]
    assert (await scripted.post("/classify", json={"model": "scripted"})).status_code == 422


@pytest.mark.parametrize("route", ["classify", "v1/embeddings"])
async def test_the_model_in_the_path_overrides_the_bodys(
    scripted: httpx2.AsyncClient, route: str
) -> None:
    texts = {"text": ["ab"]} if route == "classify" else {"input": ["ab"]}
    body = {"model": "/data/checkpoints/rm", **texts}
    answer = await scripted.post(f"/compat/sglang/scripted/{route}", json=body)
    assert answer.status_code == 200
    entry = answer.json()[0] if route == "classify" else answer.json()["data"][0]
    assert entry["embedding"] == [2.0]


async def test_the_embeddings_reply_has_openais_format(scripted: httpx2.AsyncClient) -> None:
    reply = (await scripted.post("/v1/embeddings", json={"input": ["ab", "c"]})).json()
    assert reply == {
        "object": "list",
        "model": "scripted@1",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [2.0]},
            {"object": "embedding", "index": 1, "embedding": [1.0]},
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


async def test_base64_holds_a_little_endian_float32(scripted: httpx2.AsyncClient) -> None:
    body = {"input": "abc", "encoding_format": "base64"}
    reply = (await scripted.post("/v1/embeddings", json=body)).json()
    encoded = base64.b64decode(reply["data"][0]["embedding"])
    assert struct.unpack("<f", encoded) == (3.0,)
