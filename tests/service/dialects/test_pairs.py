"""A body that went to another client's route is refused, and told where it belongs."""

import httpx2
import pytest
from speakers import SPEAKERS, Speaker

PAIRS = [
    pytest.param(speaker, route, id=f"{speaker.name} to {route.name}")
    for speaker in SPEAKERS
    for route in SPEAKERS
    if speaker is not route and route.name not in speaker.understood_by
]


@pytest.mark.parametrize(("speaker", "wrong"), PAIRS)
async def test_the_hint_names_the_right_route(
    scripted: httpx2.AsyncClient, speaker: Speaker, wrong: Speaker
) -> None:
    content = speaker.sent.replace(b"{model}", b"scripted")
    headers = {"content-type": "application/json"}
    route = wrong.route.format(model="scripted")
    answer = await scripted.post(route, content=content, headers=headers)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_request")
    assert f"this is how {speaker.name} asks: POST it to {speaker.route}" in problem["hint"]


@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.name)
@pytest.mark.parametrize("route", ["/v1/score", "/v1/best-of-n", "/v1/models/scripted/score"])
async def test_a_native_route_names_it_too(
    scripted: httpx2.AsyncClient, speaker: Speaker, route: str
) -> None:
    content = speaker.sent.replace(b"{model}", b"scripted")
    answer = await scripted.post(
        route, content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert speaker.route in answer.json()["hint"]


@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.name)
async def test_a_native_body_is_sent_home(scripted: httpx2.AsyncClient, speaker: Speaker) -> None:
    body = {"model": "scripted", "items": [{"text": "a"}]}
    answer = await scripted.post(speaker.route.format(model="scripted"), json=body)
    assert answer.status_code == 422
    assert "this is how Assay asks: POST it to /v1/score" in answer.json()["hint"]
