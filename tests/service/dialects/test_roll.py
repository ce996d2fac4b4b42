"""ROLL: rlvr/rewards/remote_reward_system_worker.py at 8eb27cc2."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx2
import pytest
from support.doubles import Gate, ScriptedModel
from support.servers import Served

from assay import app
from assay.api.dialects import roll
from assay.settings import Settings

SUBMIT, RESULT = "/compat/roll/scripted/submit", "/compat/roll/scripted/result"
TASK = {"prompt": "p", "response": "four", "rollout_id": 1}


async def result(client: httpx2.AsyncClient, request_id: str) -> httpx2.Response:
    return await client.request("GET", RESULT, json={"reward_request_id": request_id})


async def submit(client: httpx2.AsyncClient, **more: Any) -> str:
    reply = (await client.post(SUBMIT, json={**TASK, **more})).json()
    assert reply["errcode"] == 0
    return str(reply["reward_request_id"])


async def test_a_result_has_channels_and_times(
    scripted: httpx2.AsyncClient,
) -> None:
    reply = (await result(scripted, await submit(scripted))).json()
    began, ended = (datetime.fromisoformat(reply.pop(end)) for end in ("start_time", "end_time"))
    assert began <= ended
    assert reply == {
        "errcode": 0,
        "errmsg": "",
        "reward_score": 4.0,
        "dimention_reward_score": {"reward": {"score": 4.0, "debug_info": {}}},
    }


async def test_a_result_can_be_fetched_twice(scripted: httpx2.AsyncClient) -> None:
    request_id = await submit(scripted)
    first, second = await result(scripted, request_id), await result(scripted, request_id)
    assert first.json() == second.json()


async def test_an_unfinished_task_is_running(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(ScriptedModel, "predict", lambda _, inputs: gate(inputs))
    async with served(scripted_settings) as client:
        request_id = await submit(client)
        monkeypatch.setattr(roll, "MAX_POLL_SECONDS", 0.0)
        assert (await result(client, request_id)).json() == {"errcode": 1, "errmsg": "running"}
        gate.open.set()
        monkeypatch.setattr(roll, "MAX_POLL_SECONDS", 30.0)
        assert (await result(client, request_id)).json()["reward_score"] == 4.0


async def test_an_unknown_task_is_not_found(scripted: httpx2.AsyncClient) -> None:
    answer = await result(scripted, "unknown")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_a_task_ends_after_its_own_timeout(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(ScriptedModel, "predict", lambda _, inputs: gate(inputs))
    async with served(scripted_settings) as client:
        reply = (await result(client, await submit(client, timeout=0.02))).json()
        gate.open.set()
        assert reply["errcode"] == 2
        assert reply["errmsg"].startswith("out_of_time")


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": 1e9}, {"response": None}])
async def test_a_malformed_task_is_rejected_at_submission(
    scripted: httpx2.AsyncClient, wrong: dict[str, Any]
) -> None:
    answer = await scripted.post(SUBMIT, json={**TASK, **wrong})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_tasks_beyond_the_bytes_of_running_jobs_are_refused(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(ScriptedModel, "predict", lambda _, inputs: gate(inputs))
    monkeypatch.setattr(app, "JOB_LIMITS", replace(app.JOB_LIMITS, max_bytes=4000))
    async with served(scripted_settings) as client:
        first = await submit(client, response="x" * 1000)
        refused = await client.post(SUBMIT, json={**TASK, "response": "x" * 1000})
        gate.open.set()
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert "retry-after" in refused.headers
        assert (await result(client, first)).json()["reward_score"] == 1000.0
        assert (await client.post(SUBMIT, json=TASK)).status_code == 200
