"""Reranking: Cohere's v2, Jina's v1 and vLLM's routes, as of autumn 2026."""

from typing import Any

import httpx2
import pytest
from support.dialect_messages import sigmoid
from support.servers import Served

from assay.settings import Settings

DOCUMENTS = ["aa", "a" * 80, "a" * 90, "a"]


async def rerank(client: httpx2.AsyncClient, route: str = "/v2/rerank", **more: Any) -> Any:
    body = {"model": "scripted", "query": "q", "documents": DOCUMENTS, **more}
    answer = await client.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_results_of_equal_relevance_are_ordered_by_their_raw(
    scripted: httpx2.AsyncClient,
) -> None:
    results = (await rerank(scripted))["results"]
    assert [result["index"] for result in results] == [2, 1, 0, 3]
    assert results[0]["relevance_score"] == results[1]["relevance_score"] == 1.0


@pytest.mark.parametrize(("top_n", "kept"), [(None, 4), (0, 4), (1, 1), (2, 2), (9, 4)])
async def test_top_n_keeps_the_best(
    scripted: httpx2.AsyncClient, top_n: int | None, kept: int
) -> None:
    results = (await rerank(scripted, top_n=top_n))["results"]
    assert [result["index"] for result in results] == [2, 1, 0, 3][:kept]


async def test_a_reply_has_the_fields_of_every_client(scripted: httpx2.AsyncClient) -> None:
    reply = await rerank(scripted, top_n=1)
    assert reply.pop("id").startswith("rerank-")
    assert reply == {
        "model": "scripted@1",
        "results": [{"index": 2, "relevance_score": sigmoid(90)}],
        "usage": {"prompt_tokens": 173, "total_tokens": 173},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    }


@pytest.mark.parametrize(
    ("route", "return_documents", "is_returned"),
    [
        ("/v1/rerank", None, True),
        ("/v1/rerank", False, False),
        ("/v2/rerank", None, False),
        ("/v2/rerank", True, True),
    ],
)
async def test_documents_are_returned_by_each_versions_default(
    scripted: httpx2.AsyncClient, route: str, return_documents: bool | None, is_returned: bool
) -> None:
    results = (await rerank(scripted, route, return_documents=return_documents))["results"]
    texts = [DOCUMENTS[result["index"]] for result in results]
    assert [result.get("document") for result in results] == [
        {"text": text} if is_returned else None for text in texts
    ]


async def test_a_document_without_a_score_fails_the_request(scripted: httpx2.AsyncClient) -> None:
    body = {"model": "scripted", "query": "q", "documents": ["a", "refused"]}
    answer = await scripted.post("/v2/rerank", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "items_failed")
    assert [error["field"] for error in answer.json()["errors"]] == ["items.1"]


@pytest.mark.parametrize(
    "wrong", [{"max_tokens_per_doc": 0}, {"rank_fields": ["text"]}, {"documents": [{"a": "b"}]}]
)
async def test_unsupported_options_are_rejected(
    scripted: httpx2.AsyncClient, wrong: dict[str, Any]
) -> None:
    body = {"model": "scripted", "query": "q", "documents": ["a"], **wrong}
    answer = await scripted.post("/v2/rerank", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_document_with_more_fields_is_returned_unchanged(
    scripted: httpx2.AsyncClient,
) -> None:
    documents = [{"text": "abc", "title": "x", "id": 7}, "ab"]
    body = {"model": "scripted", "query": "q", "documents": documents, "return_documents": True}
    answer = await scripted.post("/v2/rerank", json=body)
    returned = {result["index"]: result["document"] for result in answer.json()["results"]}
    assert returned == {0: documents[0], 1: {"text": "ab"}}


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("max_tokens_per_doc", 0, "truncate_prompt_tokens: -1"),
        ("rank_fields", ["text"], "leave it out"),
        ("instruction", "find code", "leave it out"),
    ],
)
@pytest.mark.parametrize("route", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_an_unsupported_field_gets_a_hint(
    scripted: httpx2.AsyncClient, route: str, field: str, value: object, hint: str
) -> None:
    body = {"model": "scripted", "query": "q", "documents": ["a"], field: value}
    answer = await scripted.post(route, json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert hint in answer.json()["hint"]


@pytest.mark.parametrize("side", ["left", "right"])
async def test_documents_are_truncated_on_request(
    served: Served, reference_settings: Settings, side: str
) -> None:
    query, document = "one two", "one " + "word " * 5000 + "two three"
    native = {
        "model": "reference",
        "items": [{"text": query, "text_pair": document}],
        "options": {"truncation": side},
    }
    async with served(reference_settings) as client:
        truncation = {"truncate_prompt_tokens": -1, "truncation_side": side}
        body = {"model": "reference", "query": query, "documents": [document], **truncation}
        answer = await client.post("/rerank", json=body)
        (expected,) = (await client.post("/v1/score", json=native)).json()["results"]
        assert expected["flags"] == ["truncated"]
        assert answer.json()["results"][0]["relevance_score"] == sigmoid(expected["raw"])
