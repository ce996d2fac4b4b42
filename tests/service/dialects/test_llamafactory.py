"""LLaMA-Factory: train/ppo/ppo_utils.py and api/protocol.py at ff6d4d12."""

import httpx2
import pytest
from support.servers import Served

from assay.settings import Settings
from assay_models.base import Prepared
from assay_models.items import CodeItem
from assay_models.registry import FAMILIES, Family

LLAMA = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\none two three<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nthree two<|eot_id|>"
)
GEMMA = (
    "<pad><pad><bos><start_of_turn>user\none two three<end_of_turn>\n"
    "<start_of_turn>model\nthree two<end_of_turn>\n<eos>"
)
CHATML = "<|im_start|>user\none two three<|im_end|>\n<|im_start|>assistant\nthree two"


@pytest.mark.parametrize("text", [LLAMA, GEMMA, CHATML])
async def test_messages_are_parsed_from_the_policys_template(
    served: Served, reference_settings: Settings, text: str
) -> None:
    async with served(reference_settings) as client:
        body = {"model": "model", "messages": [text]}
        answer = await client.post("/compat/llamafactory/reference", json=body)
        assert answer.json()["scores"] == pytest.approx([0.405465], abs=1e-5), answer.text


async def test_a_reply_has_llamafactorys_format(scripted: httpx2.AsyncClient) -> None:
    body = {"model": "model", "messages": ["ab", "c"]}
    reply = (await scripted.post("/v1/score/evaluation", json=body)).json()
    assert reply.pop("id").startswith("scoreval-")
    assert reply == {"object": "score.evaluation", "model": "scripted@1", "scores": [2.0, 1.0]}


async def test_a_failed_item_fails_the_request_without_scores(scripted: httpx2.AsyncClient) -> None:
    body = {"model": "model", "messages": ["fine", "nan"]}
    answer = await scripted.post("/compat/llamafactory/scripted", json=body)
    assert answer.status_code == 500
    assert "scores" not in answer.json()


async def test_a_bare_text_for_a_model_of_prompts_and_responses_is_rejected(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(
        "support.doubles",
        "ScriptedModel",
        item=CodeItem,
        candidate="response",
        probe={"prompt": "", "response": ""},
    )
    monkeypatch.setitem(FAMILIES, "scripted", family)
    monkeypatch.setattr("support.doubles.ScriptedModel.prepare", lambda *_: Prepared(()))
    async with served(scripted_settings) as client:
        body = {"model": "model", "messages": ["no template"]}
        answer = await client.post("/compat/llamafactory/scripted", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert "cannot score a bare text" in answer.json()["detail"]
        assert "prompt, response" in answer.json()["hint"]
