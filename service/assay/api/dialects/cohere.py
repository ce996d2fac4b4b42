"""Reranking as in Cohere, Jina and vLLM: documents by relevance to a query, best first."""

import math
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from assay.api.dialects._items import pair_item
from assay.api.dialects._service import probability, require_scores, resolve_model, score
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.schemas import Priority, Timeout
from assay.types import ItemResult, Lane
from assay_models.base import Options

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class Document(BaseModel):
    """A document that is an object. It is ranked by its `text` and returned unchanged."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, JsonValue]

    text: str


class RerankBody(BaseModel):
    """A query and its documents. With `top_n` 0 or null, every document is returned.

    `truncate_prompt_tokens` may be -1, which truncates documents to the model's own limit, on the
    right unless `truncation_side` is `left`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str
    documents: Annotated[list[str | Document], Field(min_length=1)]
    model: str | None = None
    top_n: Annotated[int, Field(ge=0)] | None = None
    return_documents: bool | None = None
    truncate_prompt_tokens: Literal[-1] | None = None
    truncation_side: Literal["left", "right"] | None = None
    user: str | None = None
    request_id: str | None = None
    priority: int = 0

    @property
    def texts(self) -> list[str]:
        """The text of each document."""
        return [
            document if isinstance(document, str) else document.text for document in self.documents
        ]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The documents as the reply returns them."""
        return [
            {"text": document} if isinstance(document, str) else document.model_dump()
            for document in self.documents
        ]

    @property
    def options(self) -> Options:
        """The options of the scores: no truncation unless requested."""
        if self.truncate_prompt_tokens is None:
            return Options()
        return Options(self.truncation_side or "right")


class RerankResult(BaseModel):
    """One document. `relevance_score` is the logistic of the raw, from 0 to 1."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankUsage(BaseModel):
    """Tokens of all pairs."""

    prompt_tokens: int
    total_tokens: int


class RerankMeta(BaseModel):
    """Metadata that Cohere's clients expect."""

    api_version: dict[str, str]
    billed_units: dict[str, int]


class RerankReply(BaseModel):
    """The documents, best first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage
    meta: RerankMeta


@router.post("/v1/rerank", response_model=RerankReply)
async def rerank_v1(
    request: Request, body: RerankBody, timeout: Timeout = None, priority: Priority = "interactive"
) -> Response:
    """Rerank as Jina and vLLM do: results carry documents unless `return_documents` is false."""
    with_documents = body.return_documents is not False
    return await _rerank(request, body, with_documents, timeout=timeout, lane=priority)


@router.post("/v2/rerank", response_model=RerankReply)
async def rerank_v2(
    request: Request, body: RerankBody, timeout: Timeout = None, priority: Priority = "interactive"
) -> Response:
    """Rerank as Cohere does: results carry documents only if `return_documents` is true."""
    with_documents = body.return_documents is True
    return await _rerank(request, body, with_documents, timeout=timeout, lane=priority)


async def _rerank(
    request: Request, body: RerankBody, with_documents: bool, *, timeout: int | None, lane: Lane
) -> Response:
    """Return the ranking. A document without a score fails the request: none may be left out."""
    served = resolve_model(request, body.model)
    items = [pair_item(served, body.query, text) for text in body.texts]
    reply = await score(request, served, items, timeout=timeout, lane=lane, options=body.options)
    best = sorted(require_scores(reply), key=_sort_key, reverse=True)[: body.top_n or None]
    documents = body.objects if with_documents else None
    tokens = reply.usage.tokens
    return json_response(
        {
            "id": f"rerank-{secrets.token_hex(16)}",
            "model": reply.model,
            "results": [_entry(result, documents) for result in best],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }
    )


def _sort_key(result: ItemResult) -> tuple[float, float]:
    """Return the relevance, then the raw, which orders results of equal rounded relevance."""
    return probability(result), -math.inf if result.raw is None else result.raw


def _entry(result: ItemResult, documents: list[dict[str, Any]] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"index": result.index, "relevance_score": probability(result)}
    return entry if documents is None else {**entry, "document": documents[result.index]}
