"""NeMo-Gym: nemo_gym/base_resources_server.py and judge.py at 07d6b0d0."""

from typing import Any

import httpx2
import pytest
from support.dialect_messages import nemo_gym_failure, rollout
from support.servers import Served

from assay.settings import Settings

ROUTE = "/compat/nemo-gym/{model}/verify"


def message(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": "output_text", "text": text}]}


async def test_a_rollout_is_returned_with_its_reward(scripted: httpx2.AsyncClient) -> None:
    body = {**rollout("p", "four"), "expected_answer": 4, "_ng_task_index": 7}
    reply = (await scripted.post(ROUTE.format(model="scripted"), json=body)).json()
    assert reply == {**body, "reward": 4.0, "reward_components": {"reward": 4.0}}


@pytest.mark.parametrize(
    ("output", "prompt", "response"),
    [
        ([message("assistant", "three two")], "one two three", "three two"),
        (
            [
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
                {"type": "function_call_output", "call_id": "c", "output": "x"},
                message("assistant", "three two"),
                message("user", "thanks"),
            ],
            "one two three",
            "three two",
        ),
    ],
)
async def test_the_assistants_last_message_is_scored(
    served: Served,
    reference_settings: Settings,
    output: list[dict[str, Any]],
    prompt: str,
    response: str,
) -> None:
    async with served(reference_settings) as client:
        messages = [{"role": "user", "content": prompt}]
        body = {"responses_create_params": {"input": messages}, "response": {"output": output}}
        reward = (await client.post(ROUTE.format(model="reference"), json=body)).json()["reward"]
        item = {"prompt": prompt, "response": response}
        native = {"model": "reference", "items": [item]}
        results = (await client.post("/v1/score", json=native)).json()["results"]
        assert reward == results[0]["score"]


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ([], "no message of the assistant"),
        ([message("user", "hello")], "no message of the assistant"),
        ([{"type": "function_call", "name": "f"}], "no message of the assistant"),
        ([{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}], "than text"),
    ],
)
async def test_a_rollout_without_a_response_has_no_reward(
    scripted: httpx2.AsyncClient, output: list[dict[str, Any]], reason: str
) -> None:
    body = {"responses_create_params": {"input": "p"}, "response": {"output": output}}
    answer = await scripted.post(ROUTE.format(model="scripted"), json=body)
    assert reason in nemo_gym_failure(answer)


async def test_fields_of_an_earlier_verification_are_replaced(
    scripted: httpx2.AsyncClient,
) -> None:
    stale = {"reward": 9.0, "_ng_failure_class": "judge_failed", "failure_reason": "old"}
    body = {**rollout("p", "four"), **stale}
    reply = (await scripted.post(ROUTE.format(model="scripted"), json=body)).json()
    assert reply["reward"] == 4.0
    assert not {"_ng_failure_class", "failure_reason"} & set(reply)


async def test_a_path_without_a_model_uses_the_only_model(scripted: httpx2.AsyncClient) -> None:
    assert (await scripted.post("/verify", json=rollout("p", "four"))).json()["reward"] == 4.0
    for route in ("/seed_session", "/compat/nemo-gym/scripted/seed_session"):
        answer = await scripted.post(route, json={"responses_create_params": {"input": "p"}})
        assert (answer.status_code, answer.json()) == (200, {})


@pytest.mark.parametrize(
    "headers",
    [{"X-Assay-Timeout-Ms": "1000"}, {"X-Assay-Priority": "bulk"}, {"X-Assay-Timeout-Ms": "z"}],
)
async def test_a_header_that_a_route_does_not_read_is_ignored(
    scripted: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await scripted.post("/seed_session", json={}, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {})
