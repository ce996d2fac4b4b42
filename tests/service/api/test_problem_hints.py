"""Hints of a problem detail: fields at the level of the problem, objects, methods of a path."""

from typing import Any

import pytest
from support.servers import Served

from assay.settings import Settings
from assay_models.items import (
    CodeExecItem,
    NliItem,
    RetrievalQppItem,
    TextItem,
    VideoQppItem,
    read_fields,
)

RETRIEVAL = "id, group, query, results, query_embedding, corpus_score, depth"
RESULT = "fields of an entry of `results`: score, embedding"


async def problem(served: Served, settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    async with served(settings) as client:
        answer = await client.post("/v1/score", json=body)
    assert answer.status_code == 422
    reply: dict[str, Any] = answer.json()
    return reply


@pytest.mark.parametrize(
    ("item", "hint"),
    [
        (
            {"query": "a", "results": [], "colour": 1},
            f"fields of an item of this model: {RETRIEVAL}",
        ),
        ({"query": "a"}, f"fields of an item of this model: {RETRIEVAL}"),
        ({"query": "a", "results": 5}, f"fields of an item of this model: {RETRIEVAL}"),
        ({"query": "a", "results": [5]}, RESULT),
        ({"query": "a", "results": [{"scor": 1.0}]}, RESULT),
        ({"query": "a", "results": [{"score": 1.0, "embedding": ["x"]}]}, RESULT),
    ],
)
async def test_the_hint_names_the_fields_at_the_level_of_the_problem(
    served: Served, item: dict[str, Any], hint: str
) -> None:
    settings = Settings(models=("retrieval-qpp",))
    reply = await problem(served, settings, {"model": "retrieval-qpp", "items": [item]})
    assert reply["hint"] == hint


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        (5, "fields of an item of this model: id, group, calls, response_tokens, prompt,"),
        ([{"rol": "user"}], "fields of an entry of `prompt`: role, content"),
    ],
)
async def test_a_message_of_a_prompt_has_its_own_fields(
    served: Served, reference_settings: Settings, prompt: object, hint: str
) -> None:
    body = {"model": "reference", "items": [{"prompt": prompt, "response": "a"}]}
    assert (await problem(served, reference_settings, body))["hint"].startswith(hint)


def test_fields_that_the_family_refuses_are_not_named() -> None:
    assert read_fields(VideoQppItem) == ["id", "group", "query", "original", "collection", "system"]
    for schema in (TextItem, NliItem, CodeExecItem, RetrievalQppItem):
        assert read_fields(schema) == list(schema.model_fields)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"run": "x"}, 'run is an object, such as {"id": "my-run", "step": 0}'),
        ({"options": "x"}, 'options is an object, such as {"truncation": "right"}'),
        ({"items": ["x"]}, "an item is an object of fields, such as"),
    ],
)
async def test_a_text_in_place_of_an_object_has_an_example(
    served: Served, reference_settings: Settings, change: dict[str, Any], hint: str
) -> None:
    body = {"model": "reference", "items": [{"text": "a"}], **change}
    assert (await problem(served, reference_settings, body))["hint"].startswith(hint)


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("GET", "/v1/score", "/v1/score takes POST, not GET"),
        ("DELETE", "/v1/models", "/v1/models takes GET, HEAD, POST, not DELETE"),
        ("POST", "/v1/runs", "/v1/runs takes GET, HEAD, not POST"),
    ],
)
async def test_another_method_is_answered_with_those_of_the_path(
    served: Served, reference_settings: Settings, method: str, path: str, detail: str
) -> None:
    async with served(reference_settings) as client:
        answer = await client.request(method, path)
    reply = answer.json()
    assert (answer.status_code, reply["code"]) == (405, "method_not_allowed")
    assert (reply["title"], reply["detail"]) == ("Method Not Allowed", detail)
    assert answer.headers["Allow"] in detail
