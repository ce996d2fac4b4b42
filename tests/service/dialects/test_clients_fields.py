"""Fields that other servers' clients send: accepted where no number depends on them."""

import json
from typing import Any

import httpx2
import pytest
from support.dialect_messages import sigmoid
from support.servers import Served

from assay.settings import Settings

DOCUMENTS = ["aa", "aaaa", "a"]
BEST = [(1, 4), (0, 2), (2, 1)]
RERANK = {"query": "q", "documents": DOCUMENTS}
TEXTS = {"query": "q", "texts": DOCUMENTS}

# As the clients send them, at the places named.
RERANKERS: dict[str, dict[str, Any]] = {
    "langchain-cohere CohereRerank": {"top_n": 3, "max_tokens_per_doc": None},
    "@langchain/cohere CohereRerank": {"topN": None, "max_chunks_per_doc": None},
    "cohere-haystack CohereRanker": {"top_n": 3, "max_tokens_per_doc": 4096},
    "infinity_client": {"raw_scores": False, "return_documents": False, "top_n": None},
    "xinference-client": {
        "top_n": None,
        "max_chunks_per_doc": None,
        "return_documents": None,
        "return_len": None,
        "kwargs": "{}",
    },
    "RAGFlow Xinference": {"return_documents": "true", "return_len": "true"},
    "SiliconFlow": {"max_chunks_per_doc": 1024, "overlap_tokens": 80, "return_documents": True},
    "Open WebUI": {"top_n": 3},
    "vLLM": {"top_n": 0, "truncate_prompt_tokens": None, "priority": 0, "use_activation": True},
    "LiteLLM": {"user": "me", "metadata": {"trace": 1}, "rank_fields": None},
    "a reranker that wants all": {"top_n": -1},
}
TEI_RERANKERS: dict[str, dict[str, Any]] = {
    "Elasticsearch": {"top_n": 3, "return_text": True, "model": "scripted"},
    "LiteLLM huggingface/": {
        "raw_scores": False,
        "truncate": False,
        "truncation_direction": "Right",
        "top_n": 3,
        "return_text": True,
    },
    "kotaemon": {"is_truncated": True},
    "LlamaIndex": {"raw_scores": False, "truncate": False, "return_text": False},
    "Continue": {"return_text": False, "raw_scores": False, "truncation_direction": "Right"},
}


@pytest.mark.parametrize("client", RERANKERS)
@pytest.mark.parametrize("route", ["/v1/rerank", "/v2/rerank", "/rerank"])
async def test_a_rerankers_body_is_ranked(
    scripted: httpx2.AsyncClient, route: str, client: str
) -> None:
    answer = await scripted.post(route, json={"model": "scripted", **RERANK, **RERANKERS[client]})
    assert answer.status_code == 200, answer.text
    ranked = [(entry["index"], entry["relevance_score"]) for entry in answer.json()["results"]]
    assert ranked == [(index, sigmoid(size)) for index, size in BEST]


@pytest.mark.parametrize("client", TEI_RERANKERS)
@pytest.mark.parametrize("route", ["/rerank", "/compat/tei/scripted/rerank"])
async def test_a_body_for_text_embeddings_inference_is_ranked(
    scripted: httpx2.AsyncClient, route: str, client: str
) -> None:
    answer = await scripted.post(route, json={**TEXTS, **TEI_RERANKERS[client]})
    assert answer.status_code == 200, answer.text
    ranked = [(entry["index"], entry["score"]) for entry in answer.json()]
    assert ranked == [(index, sigmoid(size)) for index, size in BEST]
    has_text = bool(TEI_RERANKERS[client].get("return_text"))
    assert all(("text" in entry) == has_text for entry in answer.json())


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/classify", {"input": "abc", "user": "me", "metadata": {}, "padding": "do_not_pad"}),
        ("/classify", {"input": "abc", "truncate_prompt_tokens": None, "use_activation": False}),
        ("/classify", {"text": "abc", "rid": "7", "model": None}),
        ("/pooling", {"input": "abc", "embed_dtype": "float32", "encoding_format": "float"}),
        ("/v1/embeddings", {"input": "abc", "dimensions": None, "user": "me"}),
        ("/predict", {"inputs": "abc", "parameters": None, "truncate": None, "model": "scripted"}),
        ("/compat/roll/scripted/submit", {"prompt": "p", "response": "abc", "rollout_id": ["x"]}),
    ],
)
async def test_fields_of_an_engines_clients_are_accepted(
    scripted: httpx2.AsyncClient, route: str, body: dict[str, Any]
) -> None:
    answer = await scripted.post(route, json=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/v2/rerank", RERANK, {"rank_fields": ["title"]}),
        ("/v2/rerank", RERANK, {"instruction": "find code"}),
        ("/v2/rerank", RERANK, {"raw_scores": True}),
        ("/v2/rerank", RERANK, {"use_activation": False}),
        ("/v2/rerank", RERANK, {"truncate_prompt_tokens": 64}),
        ("/v2/rerank", RERANK, {"temperature": 1}),
        ("/rerank", TEXTS, {"rank_fields": ["title"]}),
        ("/classify", {"input": "a"}, {"chat_template": "{{ x }}"}),
        ("/classify", {"input": "a"}, {"truncate_prompt_tokens": 64}),
        ("/pooling", {"input": "a"}, {"activation": True}),
        ("/v1/embeddings", {"input": "a"}, {"dimensions": 8}),
        ("/v1/embeddings", {"input": "a"}, {"input_type": "query"}),
        ("/compat/slime/scripted", {"prompt": "a", "response": "b"}, {"temperature": 1}),
        ("/compat/openrlhf/scripted", {"query": ["a"]}, {"temperature": 1}),
    ],
)
async def test_a_field_that_would_change_the_number_is_refused_by_name(
    scripted: httpx2.AsyncClient, route: str, body: dict[str, Any], field: dict[str, Any]
) -> None:
    answer = await scripted.post(route, json={**body, **field})
    assert answer.status_code == 422
    (name,) = field
    assert [error["field"] for error in answer.json()["errors"]] == [name]
    assert answer.json()["hint"]


async def test_the_number_of_tokens_is_returned_on_request(scripted: httpx2.AsyncClient) -> None:
    replies = [
        (await scripted.post("/v1/rerank", json={**RERANK, "return_len": wanted})).json()
        for wanted in (True, False)
    ]
    assert [reply["meta"].get("tokens") for reply in replies] == [
        {"input_tokens": 7, "output_tokens": 0},
        None,
    ]


@pytest.mark.parametrize(
    ("words", "truncation", "limit", "is_answered"),
    [
        (99, "error", 100, True),
        (99, "error", 99, False),
        (5000, "right", 5001, True),
        (5000, "right", 5000, False),
        (5000, "left", 4096, False),
    ],
)
async def test_a_document_above_the_clients_own_limit_is_refused(
    served: Served,
    reference_settings: Settings,
    words: int,
    truncation: str,
    limit: int,
    is_answered: bool,
) -> None:
    body = {"query": "one", "documents": ["one two", "word " * words], "max_tokens_per_doc": limit}
    async with served(reference_settings) as client:
        answer = await client.post(f"/v2/rerank?truncation={truncation}", json=body)
    if is_answered:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"].startswith("documents.1: ")
        assert "max_tokens_per_doc" in answer.json()["detail"]


@pytest.mark.parametrize("top_n", [None, 0, 1, 2, 4])
@pytest.mark.parametrize("blank", ["", "  \n"])
async def test_an_empty_document_is_left_out_of_the_ranking(
    scripted: httpx2.AsyncClient, blank: str, top_n: int | None
) -> None:
    documents = ["aa", blank, "aaaa"]
    body = {"query": "q", "documents": documents, "top_n": top_n}
    reply = (await scripted.post("/v2/rerank", json=body)).json()
    kept = 1 if top_n == 1 else 2
    assert [entry["index"] for entry in reply["results"]] == [2, 0][:kept]
    assert reply["meta"]["warnings"] == ["documents.1 is empty and not in results"]
    texts = {"query": "q", "texts": documents, "top_n": top_n}
    ranked = (await scripted.post("/rerank", json=texts)).json()
    assert [entry["index"] for entry in ranked] == [2, 0][:kept]


@pytest.mark.parametrize(
    ("documents", "top_n"),
    [(["aa", "", "aaaa"], 3), (["", " "], None), (["aa", "", "refused"], None), (["nan", ""], 1)],
    ids=["a result for each", "only empty ones", "another failure", "a failing model"],
)
async def test_a_ranking_that_cannot_be_honest_fails(
    scripted: httpx2.AsyncClient, documents: list[str], top_n: int | None
) -> None:
    for body in (
        {"query": "q", "documents": documents, "top_n": top_n},
        {"query": "q", "texts": documents, "top_n": top_n},
    ):
        answer = await scripted.post("/rerank", json=body)
        assert answer.json()["code"] == "items_failed", answer.text
        failed = {error["field"] for error in answer.json()["errors"]}
        assert f"items.{documents.index('') if '' in documents else 0}" in failed


async def test_tensors_whose_shape_does_not_fit_name_their_shape(
    scripted: httpx2.AsyncClient,
) -> None:
    tensor = {"name": "text", "shape": [3], "datatype": "BYTES", "data": ["a", "b"]}
    content = json.dumps({"inputs": [tensor]}).encode()
    answer = await scripted.post("/v2/models/scripted/infer", content=content)  # no content type
    problem = answer.json()
    assert answer.status_code == 422
    assert problem["errors"] == [
        {
            "field": "inputs.0.data",
            "problem": "2 texts do not have the shape [3]: for n texts it is [n] or [n, 1]",
        }
    ]
    assert "Content-Type" not in problem["hint"]
