"""vLLM: vllm/entrypoints/pooling as of autumn 2026, and what verl (1dda039b) sends there."""

from typing import Any

import httpx2
import pytest
from support.servers import Served

from assay.settings import Settings


async def test_a_reply_has_exactly_vllms_fields(scripted: httpx2.AsyncClient) -> None:
    answer = await scripted.post("/classify", json={"model": "scripted", "input": ["ab", "c"]})
    reply = answer.json()
    assert reply.pop("id").startswith("classify-")
    assert isinstance(reply.pop("created"), int)
    usage = {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0}
    assert reply == {
        "object": "list",
        "model": "scripted@1",
        "data": [
            {"index": 0, "label": "reward", "probs": [2.0], "num_classes": 1},
            {"index": 1, "label": "reward", "probs": [1.0], "num_classes": 1},
        ],
        "usage": {**usage, "prompt_tokens_details": None},
    }


@pytest.mark.parametrize(
    ("activation", "expected"), [(None, 2.0), (False, 2.0), (True, 0.8807970779778823)]
)
async def test_the_score_is_a_logit_unless_activation_is_requested(
    scripted: httpx2.AsyncClient, activation: bool | None, expected: float
) -> None:
    body = {"model": "scripted", "input": "ab", "use_activation": activation}
    reply = (await scripted.post("/classify", json=body)).json()
    assert reply["data"][0]["probs"] == [expected]


@pytest.mark.parametrize(
    "route", ["/compat/vllm/scripted/classify", "/compat/vllm/scripted/pooling"]
)
async def test_the_model_in_the_path_overrides_the_bodys(
    scripted: httpx2.AsyncClient, route: str
) -> None:
    body = {"model": "/data/checkpoints/rm", "input": "abc", "use_activation": False}
    answer = await scripted.post(route, json=body)
    assert (answer.status_code, answer.json()["model"]) == (200, "scripted@1")


async def test_the_only_model_needs_no_name(scripted: httpx2.AsyncClient) -> None:
    answer = await scripted.post("/classify", json={"input": "abc"})
    assert answer.json()["data"][0]["probs"] == [3.0]


@pytest.mark.parametrize(
    ("truncation", "side"),
    [
        ({"truncate_prompt_tokens": -1}, "left"),
        ({"truncate_prompt_tokens": -1, "truncation_side": "right"}, "right"),
    ],
)
async def test_items_are_truncated_on_request(
    served: Served, reference_settings: Settings, truncation: dict[str, Any], side: str
) -> None:
    words = "one two three"
    messages = [
        {"role": "user", "content": words},
        {"role": "assistant", "content": "three " + "four " * 5000 + "two"},
    ]
    async with served(reference_settings) as client:
        body = {"model": "reference", "messages": messages, **truncation}
        scores = (await client.post("/classify", json=body)).json()["data"][0]["probs"]
        item = {"prompt": words, "response": messages[1]["content"]}
        options = {"truncation": side}
        native = {"model": "reference", "items": [item], "options": options}
        expected = (await client.post("/v1/score", json=native)).json()["results"][0]
        assert expected["flags"] == ["truncated"]
        assert scores == [expected["score"]]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({}, "either input or messages"),
        ({"input": "a", "messages": [{"role": "user", "content": "a"}]}, "either input or"),
        ({"input": []}, "at least 1"),
        ({"input": [1, 2]}, "valid string"),
        ({"input": "a", "add_special_tokens": False}, "special tokens"),
        ({"input": "a", "truncate_prompt_tokens": 512}, "-1"),
        ({"input": "a", "chat_template": "{{ messages }}"}, "not permitted"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no answer to score"),
    ],
)
async def test_unsupported_requests_are_rejected(
    scripted: httpx2.AsyncClient, wrong: dict[str, Any], reason: str
) -> None:
    answer = await scripted.post("/classify", json={"model": "scripted", **wrong})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert reason in str(answer.json())


async def test_other_pooling_tasks_are_rejected(scripted: httpx2.AsyncClient) -> None:
    body = {"model": "scripted", "input": "a", "task": "embed"}
    answer = await scripted.post("/pooling", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
