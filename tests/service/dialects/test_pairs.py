"""A body that went to another client's route is refused, and told where it belongs."""

import json
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from support.dialect_clients import SPEAKERS, Speaker

from assay.api.dialects._hints import SHAPES

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
    home = "/v1/score or /v1/models/{model}/score or /score"
    hint = f"this is how Assay asks: POST it to {home}"
    assert said == dict.fromkeys(said, (422, hint))


async def test_a_faulty_body_is_not_sent_where_it_already_is(
    scripted: httpx2.AsyncClient,
) -> None:
    bodies = {
        "OpenRLHF": {"query": ["a"], "prompts": "a"},
        "slime": {"prompt": "a", "response": "b", "x": 1},
        "SGLang": {"text": 1},
        "LLaMA-Factory": {"model": "m", "messages": ["a"], "x": 1},
    }
    for shape in SHAPES:
        if shape.speaker in bodies:
            content = json.dumps(bodies[shape.speaker]).encode()
            said = await hints(scripted, content, shape.routes)
            elsewhere = "the shapes of all requests are at /docs"
            assert said == dict.fromkeys(said, (422, elsewhere))


async def test_every_route_that_a_hint_names_is_there(scripted: httpx2.AsyncClient) -> None:
    document = (await scripted.get("/openapi.json")).json()
    named = {route for shape in SHAPES for route in shape.routes}
    assert named - set(document["paths"]) == {"/score"}, "which is the short form of /v1/score"
