"""slime: slime/rollout/rm_hub/__init__.py at 624b824a."""

import httpx2
import pytest
from support.servers import Served

from assay.settings import Settings


async def test_channels_are_returned_with_the_score(scripted: httpx2.AsyncClient) -> None:
    body = {"prompt": "a", "response": "abc", "label": None}
    answer = await scripted.post("/compat/slime/scripted/channels", json=body)
    assert (answer.status_code, answer.json()) == (200, {"score": 3.0, "reward": 3.0})


async def test_an_item_without_a_score_has_no_channels(scripted: httpx2.AsyncClient) -> None:
    body = {"prompt": "a", "response": "nan", "label": None}
    answer = await scripted.post("/compat/slime/scripted/channels", json=body)
    assert (answer.status_code, answer.json()["code"]) == (500, "items_failed")


@pytest.mark.parametrize(
    "prompt",
    [
        "one two three",
        [{"role": "user", "content": "one two three"}],
        [{"role": "user", "content": [{"type": "text", "text": "one two three"}], "name": "me"}],
    ],
)
async def test_a_single_user_message_equals_its_text(
    served: Served, reference_settings: Settings, prompt: object
) -> None:
    async with served(reference_settings) as client:
        body = {"prompt": prompt, "response": "three two", "label": None}
        answer = await client.post("/compat/slime/reference", json=body)
        assert answer.json() == pytest.approx(0.405465, abs=1e-5), answer.text


async def test_an_image_is_rejected(scripted: httpx2.AsyncClient) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:,"}}
    prompt = [{"role": "user", "content": [part]}]
    body = {"prompt": prompt, "response": "a cat", "label": None}
    answer = await scripted.post("/compat/slime/scripted", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "items_failed")
    assert "only text" in answer.json()["detail"]
