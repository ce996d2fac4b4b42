"""Reranking as Cohere, Jina and vLLM have it: documents by relevance to a query, best first."""

import math
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from assay.api.dialects._items import pair
from assay.api.dialects._service import probability, resolve_model, score, whole
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.json import json_response
from assay.api.schemas import Priority, Timeout
from assay.types import ItemResult, Lane
from assay_models.base import Options

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class Document(BaseModel):
    """A document that is an object. It is ranked by its `text`, and comes back as it was."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, JsonValue]

    text: str


class RerankBody(BaseModel):
    """A query and its documents. `top_n` of 0, or none at all, returns every document.

    `truncate_prompt_tokens` may be -1, which cuts documents to the model's own limit, on the right
    unless `truncation_side` is `left`.
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
        """The documents' texts."""
        return [one if isinstance(one, str) else one.text for one in self.documents]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The documents as they come back."""
        return [
            {"text": one} if isinstance(one, str) else one.model_dump() for one in self.documents
        ]

    @property
    def options(self) -> Options:
        """Too long is an error unless the request asks for a cut."""
        if self.truncate_prompt_tokens is None:
            return Options()
        return Options(self.truncation_side or "right")


class RerankResult(BaseModel):
    """One document; `relevance_score` is the logistic of the raw, in 0 to 1."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankUsage(BaseModel):
    """Tokens of all pairs."""

    prompt_tokens: int
    total_tokens: int


class RerankMeta(BaseModel):
    """What Cohere's clients look for beside the results."""

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
    """Rerank as Jina and vLLM do: each result carries its document unless told otherwise."""
    return await reranked(request, body, body.return_documents is not False, timeout, priority)


@router.post("/v2/rerank", response_model=RerankReply)
async def rerank_v2(
    request: Request, body: RerankBody, timeout: Timeout = None, priority: Priority = "interactive"
) -> Response:
    """Rerank as Cohere does: documents come back only where `return_documents` is true."""
    return await reranked(request, body, body.return_documents is True, timeout, priority)


async def reranked(
    request: Request, body: RerankBody, with_documents: bool, timeout: int | None, lane: Lane
) -> Response:
    """The reply; any document without a score fails the request, as none may be left out."""
    served = resolve_model(request, body.model)
    items = [pair(served, body.query, text) for text in body.texts]
    reply = await score(request, served, items, timeout, lane, options=body.options)
    best = sorted(whole(reply), key=_place, reverse=True)[: body.top_n or None]
    documents = body.objects if with_documents else None
    tokens = reply.usage.tokens
    return json_response(
        {
            "id": f"rerank-{secrets.token_hex(16)}",
            "model": reply.model,
            "results": [_told(result, documents) for result in best],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }
    )


def _place(result: ItemResult) -> tuple[float, float]:
    """By relevance, and by the raw where that has no digits left to tell two apart."""
    return probability(result), -math.inf if result.raw is None else result.raw


def _told(result: ItemResult, documents: list[dict[str, Any]] | None) -> dict[str, Any]:
    told: dict[str, Any] = {"index": result.index, "relevance_score": probability(result)}
    return told if documents is None else {**told, "document": documents[result.index]}
