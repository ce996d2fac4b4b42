"""reward-kit alone: reward_kit/server.py at 017b248."""

from typing import Any

import httpx2
import pytest

ROUTE = "/compat/reward-kit/scripted/reward"
ASKED = {"role": "user", "content": "2 + 2?"}
SAID = {"role": "assistant", "content": "four"}


async def test_the_reply_has_a_metric_a_channel(scripted: httpx2.AsyncClient) -> None:
    reply = (await scripted.post(ROUTE, json={"messages": [ASKED, SAID], "dataset": "x"})).json()
    reason = "scored by scripted@1"
    metric = {"score": 4.0, "success": None, "reason": reason}
    assert reply == {"score": 4.0, "reason": reason, "metrics": {"reward": metric}}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"messages": []}, "at least 1"),
        ({"messages": [ASKED]}, "no answer to score"),
        ({"messages": [ASKED, {"role": "assistant", "content": None}]}, "valid string"),
        ({"messages": [ASKED, SAID], "model": "scripted"}, "the path names the model"),
    ],
)
async def test_what_is_no_conversation_with_an_answer_is_refused(
    scripted: httpx2.AsyncClient, body: dict[str, Any], why: str
) -> None:
    answer = await scripted.post(ROUTE, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert why in str(answer.json())
