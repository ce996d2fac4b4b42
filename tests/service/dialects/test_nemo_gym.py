"""NeMo-Gym: nemo_gym/base_resources_server.py and judge.py at 07d6b0d0."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from support.checkpoints import TEMPLATE, PlainTransformers, build_checkpoint
from support.dialect_messages import nemo_gym_failure, rollout
from support.servers import Served

from assay.api.dialects._rollouts import rollout_item
from assay.served_model import ServedModel
from assay.settings import Settings
from assay_models.registry import FAMILIES

ROUTE = "/compat/nemo-gym/{model}/verify"


def model(family: str) -> ServedModel:
    return cast(ServedModel, SimpleNamespace(id=f"{family}@1", family=FAMILIES[family]))


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
                message("assistant", "three two"),
                {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
                {"type": "function_call_output", "call_id": "c", "output": "x"},
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
        ([{"role": "assistant", "content": 5}], "than text"),
        (["hello"], "response.output.0: an entry is an object"),
        (
            [{"type": "mcp_call", "name": "f", "output": "x"}, message("assistant", "four")],
            "response.output.0: an entry of type 'mcp_call' cannot be a message",
        ),
    ],
)
async def test_a_rollout_without_a_response_has_no_reward(
    scripted: httpx2.AsyncClient, output: list[Any], reason: str
) -> None:
    body = {"responses_create_params": {"input": "p"}, "response": {"output": output}}
    answer = await scripted.post(ROUTE.format(model="scripted"), json=body)
    assert reason in nemo_gym_failure(answer)


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


USER = {"role": "user", "content": "one two"}


ASKED: tuple[tuple[dict[str, Any], list[dict[str, Any]]], ...] = (
    ({"instructions": "Be brief.", "input": "one two"}, [system("Be brief."), USER]),
    ({"instructions": "Be brief.", "input": [USER]}, [system("Be brief."), USER]),
    ({"instructions": None, "input": [USER]}, [USER]),
    ({"instructions": "", "input": [USER]}, [USER]),
    ({"instructions": "A", "input": [system("B"), USER]}, [system("A\n\nB"), USER]),
    ({"input": [{"role": "developer", "content": "B"}, USER]}, [system("B"), USER]),
)
"""Parameters of a request, and the messages that the policy saw."""


@pytest.mark.weights
async def test_the_reward_is_the_logit_of_all_messages_that_the_policy_saw(
    served: Served, tmp_path: Path
) -> None:
    plain = PlainTransformers(build_checkpoint("qwen3", tmp_path))
    response = {"output": [message("assistant", "two three")]}
    rewards = []
    async with served(Settings(models=("tiny",), repository=(tmp_path,))) as client:
        for params, messages in ASKED:
            body = {"responses_create_params": params, "response": response}
            reply = (await client.post(ROUTE.format(model="tiny"), json=body)).json()
            answer = {"role": "assistant", "content": "two three"}
            returned = {**params, **reply["responses_create_params"]}
            assert (returned, reply["response"]) == (params, response)
            assert reply["reward"] == pytest.approx(plain.chat([*messages, answer])[0], abs=1e-5)
            rewards.append(round(reply["reward"], 4))
    assert len(set(rewards)) == len({str(messages) for _, messages in ASKED})


CALLS_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}"
    "{{ call.function.name }}({{ call.function.arguments.x }}){% endfor %}{% endfor %}"
)


@pytest.mark.weights
@pytest.mark.parametrize(("template", "is_rendered"), [(CALLS_TEMPLATE, True), (TEMPLATE, False)])
async def test_calls_of_tools_are_rendered_by_the_template_or_the_rollout_has_no_reward(
    served: Served, tmp_path: Path, template: str, is_rendered: bool
) -> None:
    plain = PlainTransformers(build_checkpoint("qwen3", tmp_path, template=template))
    output = [
        {"type": "function_call", "name": "add", "arguments": '{"x": 2}', "call_id": "a"},
        {"type": "function_call_output", "call_id": "a", "output": "4"},
        message("assistant", "four"),
    ]
    body = {"responses_create_params": {"input": [USER]}, "response": {"output": output}}
    async with served(Settings(models=("tiny",), repository=(tmp_path,))) as client:
        answer = await client.post(ROUTE.format(model="tiny"), json=body)
    if not is_rendered:
        assert "the chat template refuses this conversation" in nemo_gym_failure(answer)
        return
    call = {"type": "function", "function": {"name": "add", "arguments": {"x": 2}}}
    messages: list[dict[str, Any]] = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "four"},
    ]
    assert answer.json()["reward"] == pytest.approx(plain.chat(messages)[0], abs=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "name": "f", "parameters": {}}]),
        ("previous_response_id", "resp_1"),
        ("prompt", {"id": "pmpt_1"}),
    ],
)
async def test_what_the_policy_saw_and_a_message_cannot_hold_is_refused_by_name(
    scripted: httpx2.AsyncClient, field: str, value: object
) -> None:
    body = rollout("p", "four")
    body["responses_create_params"][field] = value
    answer = await scripted.post(ROUTE.format(model="scripted"), json=body)
    assert f"responses_create_params.{field}: the policy saw it" in nemo_gym_failure(answer)
    body["responses_create_params"][field] = None
    answer = await scripted.post(ROUTE.format(model="scripted"), json=body)
    assert answer.json()["reward"] == 4.0


def test_tools_are_no_matter_to_a_model_that_reads_no_conversation() -> None:
    tools = [{"type": "function", "name": "f"}]
    params: dict[str, Any] = {"input": "p", "tools": tools}
    item = rollout_item(model("nli"), params, output=[message("assistant", "r")], data={})
    assert item == {"evidence": ["p"], "response": "r"}


def test_calls_of_tools_are_messages_as_the_policy_saw_them() -> None:
    given: list[Any] = [
        USER,
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]},
        {"role": "tool", "content": "1", "tool_call_id": "a"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
    ]
    output = [
        message("assistant", "I see."),
        {"type": "function_call", "name": "g", "arguments": '{"x": 2}', "call_id": "b"},
        {"type": "function_call", "name": "g", "arguments": "{}", "call_id": "c"},
        {
            "type": "function_call_output",
            "call_id": "b",
            "output": [{"type": "input_text", "text": "4"}],
        },
        {"type": "function_call_output", "call_id": "c", "output": "0"},
        message("assistant", "four"),
    ]
    item = rollout_item(model("sequence_classifier"), {"input": given}, output=output, data={})
    calls = [
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"x": 2}'}},
        {"id": "c", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert item == {
        "prompt": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": given[1]["tool_calls"]},
            {"role": "tool", "content": "1", "tool_call_id": "a"},
            {"role": "assistant", "content": "I see.", "tool_calls": calls},
            {"role": "tool", "content": "4", "tool_call_id": "b"},
            {"role": "tool", "content": "0", "tool_call_id": "c"},
        ],
        "response": "four",
    }


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


@pytest.mark.parametrize("prefix", ["", "/compat/nemo-gym/scripted"])
async def test_a_rollouts_id_before_the_path_changes_nothing(
    scripted: httpx2.AsyncClient, prefix: str
) -> None:
    body = rollout("p", "four")
    plain = await scripted.post(f"{prefix}/verify", json=body)
    named = await scripted.post(f"{prefix}/ng-rollout/4-2-a1/verify", json=body)
    assert (
        named.json()
        == plain.json()
        == {**body, "reward": 4.0} | {"reward_components": {"reward": 4.0}}
    )
    answer = await scripted.post(f"{prefix}/ng-rollout/4-2-a1/seed_session", json=body)
    assert (answer.status_code, answer.json()) == (200, {})


@pytest.mark.parametrize("prefix", ["", "/compat/nemo-gym/scripted"])
async def test_a_rollout_may_be_verified_again(scripted: httpx2.AsyncClient, prefix: str) -> None:
    answer = await scripted.get(f"{prefix}/reverify_mode")
    assert (answer.status_code, answer.json()) == (200, "stateless")


@pytest.mark.parametrize(
    "headers",
    [{"X-Assay-Timeout-Ms": "1000"}, {"X-Assay-Priority": "bulk"}, {"X-Assay-Timeout-Ms": "z"}],
)
async def test_a_header_that_a_route_does_not_read_is_ignored(
    scripted: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await scripted.post("/seed_session", json={}, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {})
