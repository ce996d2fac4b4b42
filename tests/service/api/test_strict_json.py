"""Values that JSON does not have, and messages that no text stands for: only their item fails."""

import json
import re
from typing import Any

import httpx2
import pytest

from assay.api.json import MAX_INVALID_VALUES, MAX_MARKED_BYTES

JSON = {"content-type": "application/json"}
GOOD = '{"text": "aaa"}'
SURROGATE, NUMBER = "half of a surrogate pair is not Unicode text", "NaN is no number of JSON"


async def post(client: httpx2.AsyncClient, route: str, body: str) -> httpx2.Response:
    return await client.post(route, content=body.encode(), headers=JSON)


@pytest.mark.parametrize(
    ("item", "code", "detail"),
    [
        (r'{"text": "\ud83d"}', "invalid_json", f"items.1.text: {SURROGATE}"),
        (r'{"text": "a\udc00b"}', "invalid_json", f"items.1.text: {SURROGATE}"),
        ('{"text": NaN}', "invalid_json", f"items.1.text: {NUMBER}"),
        (
            '{"text": "a", "calls": -Infinity}',
            "invalid_json",
            "items.1.calls: -Infinity is no number of JSON",
        ),
        (
            '{"text": "a", "calls": 1e999}',
            "invalid_json",
            "items.1.calls: 1e999 is no number of JSON",
        ),
        (r'{"text": "a", "id": "\ud83d"}', "invalid_json", f"items.1.id: {SURROGATE}"),
        (
            r'{"messages": [{"role": "user", "content": "\ud83d"}]}',
            "invalid_json",
            f"items.1.messages.0.content: {SURROGATE}",
        ),
        (
            r'{"prompt": [{"role": "user", "content": "\ud83d"}], "response": "a"}',
            "invalid_json",
            f"items.1.prompt.0.content: {SURROGATE}",
        ),
        (
            '{"messages": [{"role": "user", "content": null}]}',
            "invalid_item",
            "a message has neither content nor tool calls",
        ),
        (
            '{"messages": [{"role": "user"}]}',
            "invalid_item",
            "a message has neither content nor tool calls",
        ),
        (
            '{"prompt": [{"role": "user", "content": [{"type": "image_url"}]}], "response": "a"}',
            "invalid_item",
            "only text can be scored: send content as a string",
        ),
    ],
)
@pytest.mark.parametrize("route", ["/v1/score", "/v1/models/scripted/score", "/v1/best-of-n"])
async def test_an_item_with_an_invalid_value_fails_alone(
    client: httpx2.AsyncClient, route: str, item: str, code: str, detail: str
) -> None:
    entries = f"[{GOOD}, {item}, {GOOD}]"
    name = "candidates" if "best" in route else "items"
    model = "" if "models" in route else '"model": "scripted", '
    answer = await post(client, route, f"{{{model}{json.dumps(name)}: {entries}}}")
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [result["score"] for result in results] == [3.0, None, 3.0]
    expected = detail.replace("items.", f"{name}.")
    assert results[1]["error"] == {"code": code, "detail": expected}
    assert results[1]["id"] is None


async def test_the_failed_item_keeps_its_names(client: httpx2.AsyncClient) -> None:
    first = r'{"id": "a", "group": "g", "text": "\ud83d"}'
    items = f'[{first}, {{"group": "g", "text": "aa"}}]'
    reply = (await post(client, "/v1/score", f'{{"model": "scripted", "items": {items}}}')).json()
    assert [(result["id"], result["group"]) for result in reply["results"]] == [
        ("a", "g"),
        (None, "g"),
    ]
    assert reply["groups"][0]["ranks"] == [None, 1]


@pytest.mark.parametrize(
    "fields",
    [
        '"messages": [NaN]',
        '"text": NaN, "calls": NaN',
        '"text": "a", "response_tokens": NaN',
        '"prompt": "a", "response": NaN',
    ],
)
async def test_an_invalid_item_of_a_run_fails_alone(
    client: httpx2.AsyncClient, fields: str
) -> None:
    items = f"[{GOOD}, {{{fields}}}]"
    body = f'{{"model": "scripted", "items": {items}, "run": {{"id": "exp"}}}}'
    reply = (await post(client, "/v1/score", body)).json()
    assert [result["status"] for result in reply["results"]] == ["ok", "error"]


async def test_an_invalid_value_is_not_cached_as_null(client: httpx2.AsyncClient) -> None:
    for value, score in (("null", 3.0), ("NaN", None), ("null", 3.0)):
        body = f'{{"model": "scripted", "items": [{{"text": "aaa", "calls": {value}}}]}}'
        (result,) = (await post(client, "/v1/score", body)).json()["results"]
        assert result["score"] == score


@pytest.mark.parametrize(
    ("route", "body", "field", "problem"),
    [
        (
            "/compat/slime/scripted",
            '{"prompt": "a", "response": "b", "label": {"gold": [1, NaN]}}',
            "label.gold.1",
            NUMBER,
        ),
        (
            "/compat/slime/scripted",
            '{"prompt": "a", "response": "b", "label": NaN}',
            "label",
            NUMBER,
        ),
        (
            "/compat/openrlhf/scripted",
            r'{"query": ["a", "b"], "prompts": ["a", "\ud83d"]}',
            "prompts.1",
            SURROGATE,
        ),
        ("/v2/rerank", r'{"query": "a", "documents": ["b", "\ud83d"]}', "documents.1", SURROGATE),
        ("/rerank", r'{"query": "a", "texts": ["b", "\ud83d"]}', "texts.1", SURROGATE),
        ("/classify", r'{"input": ["b", "\ud83d"]}', "input.1", SURROGATE),
        ("/predict", r'{"inputs": [["b", "\ud83d"]]}', "inputs.0.1", SURROGATE),
        ("/v1/embeddings", r'{"input": "\ud83d"}', "input", SURROGATE),
        (
            "/v2/models/scripted/infer",
            r'{"inputs": [{"name": "\ud83d", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}',
            "inputs.0.name",
            SURROGATE,
        ),
        (
            "/compat/nemo-gym/scripted/verify",
            '{"responses_create_params": {"input": "a"}, "response": {"output": []}, "x": NaN}',
            "x",
            NUMBER,
        ),
        ("/v1/score", '{"model": "scripted", "items": [{"text": "a"}, NaN]}', "items.1", NUMBER),
        (
            "/v1/score",
            '{"model": "scripted", "items": [{"text": "a"}], "options": {"raw": NaN}}',
            "options.raw",
            NUMBER,
        ),
        ("/v1/score", r'{"model": "\ud83d", "items": [{"text": "a"}]}', "model", SURROGATE),
        ("/v1/runs/exp/telemetry", '{"step": 1, "values": {"kl": NaN}}', "values.kl", NUMBER),
    ],
)
async def test_an_invalid_value_outside_items_is_named_once(
    client: httpx2.AsyncClient, route: str, body: str, field: str, problem: str
) -> None:
    answer = await post(client, route, body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"] == [{"field": field, "problem": problem}]
    assert answer.json()["detail"] == f"{field}: {problem}"


@pytest.mark.parametrize("name", [r"\ud83d", r"a\udfff"])
async def test_an_invalid_name_of_a_field_is_refused_by_name(
    client: httpx2.AsyncClient, name: str
) -> None:
    body = f'{{"model": "scripted", "items": [{{"text": "a", "{name}": 1}}]}}'
    answer = await post(client, "/v1/score", body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == f"items.0.{name}"


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"items": NaN' + "[" * 2_000,
        "[" * 1_000 + "NaN" + "]" * 1_000,
        '{"model": "scripted", "items": [{"text": "a"}]} NaN',
        "NaN, NaN",
        "\ufeff{}",
        '{"a": 1' + "0" * 100_000 + "}",
    ],
    ids=range(7),
)
async def test_a_text_that_is_no_json_is_still_refused(
    client: httpx2.AsyncClient, body: str
) -> None:
    answer = await post(client, "/v1/score", body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("NaN", "unexpected character, expected a JSON value at line 2 column 10"),
        (r'"\ud83d"', "no low surrogate in string at line 2 column 11"),
    ],
)
async def test_an_invalid_value_in_a_large_body_is_an_error_with_its_place(
    client: httpx2.AsyncClient, value: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = '{"model": "scripted", "items": [{"text": "aaa"},\n{"text": '
    largest = f"{head}{value}}}]}}".ljust(MAX_MARKED_BYTES)
    (_, failed) = (await post(client, "/v1/score", largest)).json()["results"]
    assert failed["error"]["code"] == "invalid_json"
    monkeypatch.delattr("assay.api.json._parse_marked")
    answer = await post(client, "/v1/score", f"{largest} ")
    assert (answer.status_code, answer.json()["detail"]) == (422, f"body: not valid JSON: {error}")


@pytest.mark.parametrize("place", ["inside", "beside"])
@pytest.mark.parametrize(
    ("opened", "closed"), [("[", "]"), ('{"a":', "}")], ids=["arrays", "objects"]
)
async def test_an_invalid_value_in_deep_nesting_is_an_error_with_its_place(
    client: httpx2.AsyncClient, opened: str, closed: str, place: str
) -> None:
    inner, text = ("NaN", '"a"') if place == "inside" else ("1", "NaN")
    # Around 490 levels the interpreter's limit of recursion is reached, in one step or another.
    for levels in (*range(440, 540), 1_000):
        nested = f"{opened * levels}{inner}{closed * levels}"
        body = f'{{"model": "scripted", "items": [{{"text": {text}, "run": {nested}}}]}}'
        answer = await post(client, "/v1/score", body)
        assert answer.status_code == 422, answer.text
        detail = answer.json()["detail"]
        if levels > 500 or not detail.startswith("items.0."):
            assert detail == (
                "body: not valid JSON: unexpected character, expected a JSON value at line 1 "
                f"column {body.index('NaN') + 1}"
            )


def messages(content: Any) -> dict[str, Any]:
    """Return an item of a question and an answer with this content."""
    return {
        "messages": [
            {"role": "user", "content": "2?"},
            {"role": "assistant", "content": content},
        ]
    }


async def test_parts_of_text_are_joined(client: httpx2.AsyncClient) -> None:
    parts = [{"type": "text", "text": "fo"}, {"type": "text", "text": "ur"}]
    body = {"model": "scripted", "items": [messages(parts), messages("four")]}
    results = (await client.post("/v1/score", json=body)).json()["results"]
    assert [result["status"] for result in results] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/v1/score", {"model": "scripted", "items": [{"prompt": 3, "response": "a"}]}, "prompt"),
        ("/v1/score", {"model": "scripted", "items": [{"messages": [{"content": "a"}]}]}, "role"),
        ("/v1/rerank", {"model": "scripted", "query": "a", "documents": [3]}, "documents.0"),
        ("/classify", {"model": "scripted", "text": 3}, "text"),
        ("/predict", {"inputs": [["a", 3]]}, "inputs.0.1"),
        ("/compat/slime/scripted", {"prompt": [{"content": 3}], "response": "a"}, "content"),
    ],
)
async def test_a_problem_names_its_field_as_the_sender_wrote_it(
    client: httpx2.AsyncClient, route: str, body: dict[str, Any], field: str
) -> None:
    problem = (await client.post(route, json=body)).json()
    names = [error["field"] for error in problem["errors"]]
    assert any(name.endswith(field) for name in names), names
    assert all(re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)*", name) for name in names), names


async def test_more_invalid_values_than_are_marked_are_an_error_of_the_body(
    client: httpx2.AsyncClient,
) -> None:
    for count, status in ((MAX_INVALID_VALUES, 200), (MAX_INVALID_VALUES + 1, 422)):
        invalid = ",".join(["NaN"] * count)
        body = f'{{"model": "scripted", "items": [{{"text": "a"}}, {{"messages": [{invalid}]}}]}}'
        answer = await post(client, "/v1/score", body)
        assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith("body: not valid JSON: ")
