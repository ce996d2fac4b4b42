"""NeMo-Gym's metrics: nemo_gym/reward_profile.py at 07d6b0d0."""

import math
from typing import Any

import httpx2
import pytest
from support.dialect_messages import rollout

ROUTES = ["/aggregate_metrics", "/compat/nemo-gym/scripted/aggregate_metrics"]


def verified(task: int, index: int, **fields: object) -> dict[str, Any]:
    return {"_ng_task_index": task, "_ng_rollout_index": index, **fields}


RESPONSES = [
    verified(3, 1, reward=2.0, passed=True, response={"usage": {"total_tokens": 7}}),
    verified(3, 0, reward=1.0, passed=False, agent_ref={"name": "a"}),
    verified(3, 2, reward=None, mask_sample=True, failure_reason="too long"),
    verified(0, 0, reward=5.0),
]


async def metrics(client: httpx2.AsyncClient, responses: object, route: str = ROUTES[0]) -> Any:
    answer = await client.post(route, json={"verify_responses": responses})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("route", ROUTES)
async def test_metrics_are_the_statistics_of_each_number(
    scripted: httpx2.AsyncClient, route: str
) -> None:
    reply = await metrics(scripted, RESPONSES, route)
    means = {"reward": 8 / 3, "passed": 0.5, "total_tokens": 7.0, "mask_sample": 1.0}
    assert reply["key_metrics"] == pytest.approx({f"mean/{n}": v for n, v in means.items()})
    assert reply["agent_metrics"].items() >= reply["key_metrics"].items()
    assert {n: v for n, v in reply["agent_metrics"].items() if n.endswith("/reward")} == {
        "mean/reward": pytest.approx(8 / 3),
        "max/reward": 5.0,
        "min/reward": 1.0,
        "median/reward": 2.0,
        "std/reward": pytest.approx(math.sqrt(13 / 3)),
    }
    alone, group = reply["group_level_metrics"]
    assert (alone["_ng_task_index"], alone["num_rollouts"], alone["std/reward"]) == (0, 1, 0.0)
    assert (group["_ng_task_index"], group["num_rollouts"]) == (3, 3)
    assert (group["mean/reward"], group["median/reward"]) == (1.5, 1.5)
    assert group["std/reward"] == pytest.approx(math.sqrt(1 / 2))
    assert "std/total_tokens" not in group, "one value of three rollouts has no deviation"
    assert [info["rollout_id"] for info in group["rollout_infos"]] == ["3:0", "3:1", "3:2"]
    assert group["rollout_infos"][2]["reward"] is None


async def test_a_verified_rollout_is_in_the_mean_and_a_failed_one_is_not(
    scripted: httpx2.AsyncClient,
) -> None:
    bodies = [rollout("p", "four"), rollout("p", "nan"), rollout("p", "sixsix")]
    replies = [(await scripted.post("/verify", json=body)).json() for body in bodies]
    numbered = [{**reply, "_ng_rollout_index": n} for n, reply in enumerate(replies)]
    assert [reply["reward"] for reply in replies] == [4.0, None, 6.0]
    assert (await metrics(scripted, numbered))["agent_metrics"]["mean/reward"] == 5.0


async def test_no_rollouts_have_no_metrics(scripted: httpx2.AsyncClient) -> None:
    empty: dict[str, Any] = {"group_level_metrics": [], "agent_metrics": {}, "key_metrics": {}}
    assert await metrics(scripted, []) == empty


async def test_a_number_that_is_too_large_for_a_statistic_leaves_it_out(
    scripted: httpx2.AsyncClient,
) -> None:
    rows = [verified(0, index, reward=1e308) for index in range(3)]
    reply = await metrics(scripted, rows)
    assert reply["agent_metrics"] == {f"{n}/reward": 1e308 for n in ("max", "min", "median")}


@pytest.mark.parametrize(
    ("responses", "detail"),
    [
        ([{"reward": 1.0}, {"reward": 2.0}], "two rollouts have _ng_task_index 0"),
        ([verified(0, 0), verified(0, 0)], "and _ng_rollout_index 0"),
        ([{"_ng_task_index": "a"}], "_ng_task_index is an integer, not 'a'"),
        ([{"_ng_rollout_index": True}], "_ng_rollout_index is an integer, not True"),
    ],
)
async def test_rollouts_without_indices_of_their_own_are_refused(
    scripted: httpx2.AsyncClient, responses: object, detail: str
) -> None:
    answer = await scripted.post(ROUTES[0], json={"verify_responses": responses})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert detail in answer.json()["detail"]
