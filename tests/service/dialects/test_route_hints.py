"""The hints of a 422 name the right route of a body that was sent to another one."""

import json
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from support.dialect_clients import DIALECT_CLIENTS, DialectClient

from assay.api.hints import BODY_SHAPES

NATIVE = ("/v1/score", "/v1/best-of-n", "/v1/models/scripted/score")


async def hints(
    client: httpx2.AsyncClient, content: bytes, routes: Sequence[str]
) -> dict[str, tuple[int, Any]]:
    """Return the status and the hint, if any, of each route's reply to this body."""
    replies = {}
    for route in routes:
        headers = {"content-type": "application/json"}
        answer = await client.post(route.format(model="scripted"), content=content, headers=headers)
        reply = answer.json()
        replies[route] = answer.status_code, isinstance(reply, dict) and reply.get("hint")
    return replies


def test_compatible_clients_are_known() -> None:
    names = {dialect.name for dialect in DIALECT_CLIENTS}
    for dialect in DIALECT_CLIENTS:
        assert dialect.compatible_with <= names - {dialect.name}, dialect.name


@pytest.mark.parametrize("dialect", DIALECT_CLIENTS, ids=lambda dialect: dialect.name)
async def test_every_other_route_names_the_right_route(
    scripted: httpx2.AsyncClient, dialect: DialectClient
) -> None:
    others = [
        other.route
        for other in DIALECT_CLIENTS
        if other.path != dialect.path and other.name not in dialect.compatible_with
    ]
    content = dialect.example.replace(b"{model}", b"scripted")
    replies = await hints(scripted, content, [*others, *NATIVE])
    assert {route: status for route, (status, _) in replies.items()} == dict.fromkeys(replies, 422)
    missing = [route for route, (_, hint) in replies.items() if dialect.path not in hint]
    assert not missing


async def test_a_native_body_on_a_dialects_route_gets_the_native_routes(
    scripted: httpx2.AsyncClient,
) -> None:
    content = b'{"model": "scripted", "items": [{"text": "a"}]}'
    replies = await hints(scripted, content, [dialect.route for dialect in DIALECT_CLIENTS])
    routes = "/v1/score or /v1/models/{model}/score or /score"
    hint = f"this is how Assay asks: POST it to {routes}"
    assert replies == dict.fromkeys(replies, (422, hint))


async def test_a_malformed_body_on_its_own_route_gets_the_general_hint(
    scripted: httpx2.AsyncClient,
) -> None:
    bodies = {
        "OpenRLHF": {"query": ["a"], "prompts": "a"},
        "slime": {"prompt": "a", "response": "b", "x": 1},
        "SGLang": {"text": 1},
        "LLaMA-Factory": {"model": "m", "messages": ["a"], "x": 1},
    }
    assert bodies.keys() <= {shape.dialect for shape in BODY_SHAPES}, "an unknown dialect"
    for shape in BODY_SHAPES:
        if shape.dialect in bodies:
            content = json.dumps(bodies[shape.dialect]).encode()
            replies = await hints(scripted, content, shape.routes)
            general = "the shapes of all requests are at /docs"
            assert replies == dict.fromkeys(shape.routes, (422, general))


async def test_every_route_in_a_hint_exists(scripted: httpx2.AsyncClient) -> None:
    document = (await scripted.get("/openapi.json")).json()
    named = {route for shape in BODY_SHAPES for route in shape.routes}
    assert named - set(document["paths"]) == {"/score"}, "which is the short form of /v1/score"
