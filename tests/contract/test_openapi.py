"""Replies match the committed OpenAPI document."""

import json
from typing import Any

import jsonschema_rs
import pytest
from support.dialect_clients import DIALECT_CLIENTS, DialectClient
from support.paths import ROOT
from support.servers import Served

from assay.settings import Settings

DOCUMENT = json.loads((ROOT / "docs" / "reference" / "openapi.json").read_text())


def schema_of(path: str, method: str, status: str = "200") -> dict[str, object]:
    answers = DOCUMENT["paths"][path][method]["responses"]
    (content,) = (kind for kind in answers[status]["content"].values() if "schema" in kind)
    return {**content["schema"], "components": DOCUMENT["components"]}


BODY = {
    "model": "reference",
    "items": [
        {"id": "a", "group": "p", "prompt": "one two three", "response": "two"},
        {"id": "b", "group": "p", "prompt": "one two three", "response": "two three"},
        {"prompt": "no response"},
    ],
    "options": {"truncation": "left", "raw": True, "on_error": {"substitute": 0}},
    "run": {"id": "exp", "step": 1, "split": "train"},
}
CANDIDATES = {"model": "reference", "prompt": "one two", "candidates": ["one", {"response": "two"}]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/v1/score", BODY),
        ("post", "/v1/best-of-n", CANDIDATES),
        ("get", "/v1/models", None),
        ("get", "/v1/models/{model}", None),
        ("get", "/readyz", None),
    ],
)
async def test_replies_match_their_schema_exactly(
    served: Served, reference_settings: Settings, method: str, path: str, body: object
) -> None:
    async with served(reference_settings) as client:
        answer = await client.request(method, path.format(model="reference"), json=body)
        assert answer.status_code == 200, answer.text
        schema = schema_of(path, method)
        jsonschema_rs.validate(schema, answer.json())
        properties = resolved(schema)["properties"]
        assert set(answer.json()) == set(properties), "no field beside the documented ones"


@pytest.mark.parametrize("dialect", DIALECT_CLIENTS, ids=lambda dialect: dialect.name)
async def test_a_dialects_reply_matches_its_schema(
    served: Served, scripted_settings: Settings, dialect: DialectClient
) -> None:
    async with served(scripted_settings) as client:
        content = dialect.example.replace(b"{model}", b"scripted")
        headers = {"content-type": "application/json"}
        route = dialect.route.format(model="scripted")
        answer = await client.post(route, content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        jsonschema_rs.validate(schema_of(dialect.path, "post"), answer.json())
        for status in ("404", "422", "429", "500", "503"):
            assert status in DOCUMENT["paths"][dialect.path]["post"]["responses"]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema["$ref"].rsplit("/", 1)[1]
    component: dict[str, Any] = DOCUMENT["components"]["schemas"][name]
    return component


async def test_items_are_documented_with_the_fields_of_every_family() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    families = {
        *("CodeExecItem", "CodeItem", "GradeAnswerItem", "GroupVoteItem", "NliItem"),
        *("RetrievalQppItem", "TextItem", "ToolCallMatchItem", "VideoQppItem"),
    }
    assert families <= set(schemas)
    items = schemas["ScoreBody"]["properties"]["items"]["items"]
    assert {option["$ref"].rsplit("/", 1)[1] for option in items["anyOf"]} == families
