"""A body that went to another client's route is refused, and told where it belongs."""

from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from speakers import SPEAKERS, Speaker

NATIVE = ("/v1/score", "/v1/best-of-n", "/v1/models/scripted/score")


async def hints(
    client: httpx2.AsyncClient, content: bytes, routes: Sequence[str]
) -> dict[str, tuple[int, Any]]:
    """What each route says of this body: the status, and the hint if there is one."""
    said = {}
    for route in routes:
        headers = {"content-type": "application/json"}
        answer = await client.post(route.format(model="scripted"), content=content, headers=headers)
        reply = answer.json()
        said[route] = answer.status_code, isinstance(reply, dict) and reply.get("hint")
    return said


@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.name)
async def test_every_other_route_names_the_right_one(
    scripted: httpx2.AsyncClient, speaker: Speaker
) -> None:
    others = [
        one.route
        for one in SPEAKERS
        if one.path != speaker.path and one.name not in speaker.understood_by
    ]
    content = speaker.sent.replace(b"{model}", b"scripted")
    said = await hints(scripted, content, [*others, *NATIVE])
    assert {route: status for route, (status, _) in said.items()} == dict.fromkeys(said, 422)
    silent = [route for route, (_, hint) in said.items() if speaker.path not in hint]
    assert not silent


async def test_a_native_body_is_sent_home(scripted: httpx2.AsyncClient) -> None:
    content = b'{"model": "scripted", "items": [{"text": "a"}]}'
    said = await hints(scripted, content, [speaker.route for speaker in SPEAKERS])
    here = "this is how Assay asks: POST it to /v1/score"
    assert said == dict.fromkeys(said, (422, here))
