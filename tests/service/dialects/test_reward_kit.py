"""reward-kit: reward_kit/server.py at 017b248."""

from typing import Any

import httpx2
import pytest

ROUTE = "/compat/reward-kit/scripted/reward"
QUESTION = {"role": "user", "content": "2 + 2?"}
ANSWER = {"role": "assistant", "content": "four"}


async def test_a_reply_has_a_metric_for_each_channel(scripted: httpx2.AsyncClient) -> None:
    reply = (
        await scripted.post(ROUTE, json={"messages": [QUESTION, ANSWER], "dataset": "x"})
    ).json()
    reason = "scored by scripted@1"
    metric = {"score": 4.0, "success": None, "reason": reason}
    assert reply == {"score": 4.0, "reason": reason, "metrics": {"reward": metric}}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"messages": []}, "at least 1"),
        ({"messages": [QUESTION]}, "no answer to score"),
        ({"messages": [QUESTION, ANSWER], "model": "scripted"}, "the path names the model"),
    ],
)
async def test_a_conversation_without_a_response_is_rejected(
    scripted: httpx2.AsyncClient, body: dict[str, Any], reason: str
) -> None:
    answer = await scripted.post(ROUTE, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert reason in str(answer.json())


async def test_an_answer_without_text_is_an_item_without_a_score(
    scripted: httpx2.AsyncClient,
) -> None:
    answer = await scripted.post(
        ROUTE, json={"messages": [QUESTION, {"role": "assistant", "content": None}]}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "items_failed")
    assert "neither content nor tool calls" in answer.json()["detail"]
