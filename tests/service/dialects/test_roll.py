"""ROLL alone: rlvr/rewards/remote_reward_system_worker.py at 8eb27cc2."""

from datetime import datetime
from typing import Any

import httpx2
import pytest
from support.doubles import Gate, ScriptedModel
from support.servers import Served

from assay.api.dialects import roll
from assay.settings import Settings

SUBMIT, RESULT = "/compat/roll/scripted/submit", "/compat/roll/scripted/result"
TASK = {"prompt": "p", "response": "four", "rollout_id": 1}


async def result(client: httpx2.AsyncClient, ticket: str) -> httpx2.Response:
    return await client.request("GET", RESULT, json={"reward_request_id": ticket})


async def submitted(client: httpx2.AsyncClient, **more: Any) -> str:
    reply = (await client.post(SUBMIT, json={**TASK, **more})).json()
    assert reply["errcode"] == 0
    return str(reply["reward_request_id"])


async def test_the_result_tells_channels_and_when_they_were_made(
    scripted: httpx2.AsyncClient,
) -> None:
    reply = (await result(scripted, await submitted(scripted))).json()
    began, ended = (datetime.fromisoformat(reply.pop(end)) for end in ("start_time", "end_time"))
    assert began <= ended
    assert reply == {
        "errcode": 0,
        "errmsg": "",
        "reward_score": 4.0,
        "dimention_reward_score": {"reward": {"score": 4.0, "debug_info": {}}},
    }


async def test_a_result_can_be_asked_for_again(scripted: httpx2.AsyncClient) -> None:
    ticket = await submitted(scripted)
    first, second = await result(scripted, ticket), await result(scripted, ticket)
    assert first.json() == second.json()


async def test_what_is_not_there_yet_is_running(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(ScriptedModel, "predict", lambda _, inputs: gate(inputs))
    async with served(scripted_settings) as client:
        ticket = await submitted(client)
        monkeypatch.setattr(roll, "LINGER", 0.0)
        assert (await result(client, ticket)).json() == {"errcode": 1, "errmsg": "running"}
        gate.open.set()
        monkeypatch.setattr(roll, "LINGER", 30.0)
        assert (await result(client, ticket)).json()["reward_score"] == 4.0


async def test_a_ticket_of_nobodys_is_not_found(scripted: httpx2.AsyncClient) -> None:
    answer = await result(scripted, "unheard")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_the_tasks_own_timeout_holds(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(ScriptedModel, "predict", lambda _, inputs: gate(inputs))
    async with served(scripted_settings) as client:
        reply = (await result(client, await submitted(client, timeout=0.02))).json()
        gate.open.set()
        assert reply["errcode"] == 2
        assert reply["errmsg"].startswith("out_of_time")


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": 1e9}, {"response": None}])
async def test_a_task_that_cannot_be_done_is_refused_at_once(
    scripted: httpx2.AsyncClient, wrong: dict[str, Any]
) -> None:
    answer = await scripted.post(SUBMIT, json={**TASK, **wrong})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
