"""Reranking alone: Cohere's v2, Jina's v1 and vLLM's routes, as of autumn 2026."""

from typing import Any

import httpx2
import pytest
from support.dialect_clients import sigmoid
from support.servers import Served

from assay.settings import Settings

DOCUMENTS = ["aa", "a" * 80, "a" * 90, "a"]


async def ranked(client: httpx2.AsyncClient, route: str = "/v2/rerank", **more: Any) -> Any:
    body = {"model": "scripted", "query": "q", "documents": DOCUMENTS, **more}
    answer = await client.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_best_comes_first_also_where_the_logistic_is_flat(
    scripted: httpx2.AsyncClient,
) -> None:
    results = (await ranked(scripted))["results"]
    assert [one["index"] for one in results] == [2, 1, 0, 3]
    assert results[0]["relevance_score"] == results[1]["relevance_score"] == 1.0


@pytest.mark.parametrize(("top_n", "kept"), [(None, 4), (0, 4), (1, 1), (2, 2), (9, 4)])
async def test_top_n_keeps_the_best(
    scripted: httpx2.AsyncClient, top_n: int | None, kept: int
) -> None:
    results = (await ranked(scripted, top_n=top_n))["results"]
    assert [one["index"] for one in results] == [2, 1, 0, 3][:kept]


async def test_the_reply_has_what_each_client_looks_for(scripted: httpx2.AsyncClient) -> None:
    reply = await ranked(scripted, top_n=1)
    assert reply.pop("id").startswith("rerank-")
    assert reply == {
        "model": "scripted@1",
        "results": [{"index": 2, "relevance_score": sigmoid(90)}],
        "usage": {"prompt_tokens": 173, "total_tokens": 173},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    }


@pytest.mark.parametrize(
    ("route", "wanted", "there"),
    [
        ("/v1/rerank", None, True),
        ("/v1/rerank", False, False),
        ("/v2/rerank", None, False),
        ("/v2/rerank", True, True),
    ],
)
async def test_documents_come_back_as_each_version_has_it(
    scripted: httpx2.AsyncClient, route: str, wanted: bool | None, there: bool
) -> None:
    results = (await ranked(scripted, route, return_documents=wanted))["results"]
    texts = [DOCUMENTS[one["index"]] for one in results]
    assert [one.get("document") for one in results] == [
        {"text": text} if there else None for text in texts
    ]


async def test_a_document_without_a_score_is_not_left_out(scripted: httpx2.AsyncClient) -> None:
    body = {"model": "scripted", "query": "q", "documents": ["a", "refused"]}
    answer = await scripted.post("/v2/rerank", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "items_failed")
    assert [one["field"] for one in answer.json()["errors"]] == ["items.1"]


@pytest.mark.parametrize(
    "wrong", [{"max_tokens_per_doc": 512}, {"rank_fields": ["text"]}, {"documents": [{"a": "b"}]}]
)
async def test_what_cannot_be_honoured_is_refused(
    scripted: httpx2.AsyncClient, wrong: dict[str, Any]
) -> None:
    body = {"model": "scripted", "query": "q", "documents": ["a"], **wrong}
    answer = await scripted.post("/v2/rerank", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_document_with_more_than_a_text_comes_back_whole(
    scripted: httpx2.AsyncClient,
) -> None:
    documents = [{"text": "abc", "title": "x", "id": 7}, "ab"]
    body = {"model": "scripted", "query": "q", "documents": documents, "return_documents": True}
    answer = await scripted.post("/v2/rerank", json=body)
    told = {one["index"]: one["document"] for one in answer.json()["results"]}
    assert told == {0: documents[0], 1: {"text": "ab"}}


@pytest.mark.parametrize(
    ("field", "value", "how"),
    [
        ("max_tokens_per_doc", 512, "truncate_prompt_tokens: -1"),
        ("rank_fields", ["text"], "leave it out"),
        ("instruction", "find code", "leave it out"),
    ],
)
@pytest.mark.parametrize("route", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_what_is_refused_is_told_what_to_do_instead(
    scripted: httpx2.AsyncClient, route: str, field: str, value: object, how: str
) -> None:
    body = {"model": "scripted", "query": "q", "documents": ["a"], field: value}
    answer = await scripted.post(route, json=body)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert how in answer.json()["hint"]


@pytest.mark.parametrize("side", ["left", "right"])
async def test_documents_are_cut_where_that_is_asked_for(
    served: Served, reference_settings: Settings, side: str
) -> None:
    query, document = "one two", "one " + "word " * 5000 + "two three"
    native = {
        "model": "reference",
        "items": [{"text": query, "text_pair": document}],
        "options": {"truncation": side},
    }
    async with served(reference_settings) as client:
        cut = {"truncate_prompt_tokens": -1, "truncation_side": side}
        body = {"model": "reference", "query": query, "documents": [document], **cut}
        answer = await client.post("/rerank", json=body)
        (expected,) = (await client.post("/v1/score", json=native)).json()["results"]
        assert expected["flags"] == ["truncated"]
        assert answer.json()["results"][0]["relevance_score"] == sigmoid(expected["raw"])
