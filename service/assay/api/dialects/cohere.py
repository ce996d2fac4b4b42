"""Reranking as in Cohere, Jina and vLLM: documents by relevance to a query, best first."""

import math
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from assay.api.dialects._items import pair_item
from assay.api.dialects._service import (
    merge_truncation,
    probability,
    ranked_documents,
    score,
    select_model,
)
from assay.api.errors import PROBLEMS
from assay.api.hints import field_hint
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.json_values import Json
from assay.api.parameters import ForeignParameters, Parameters
from assay.api.schemas import Accepted, EngineBody, ItemList, ModelName
from assay.errors import InvalidRequest
from assay.types import ItemResult, ScoreReply
from assay_models.base import NullIsAbsent, Options

# Flowise writes it as Cohere's SDK for JavaScript does.
TOP_N = Field(None, validation_alias=AliasChoices("top_n", "topN"))

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class Document(NullIsAbsent):
    """A document that is an object. It is ranked by its `text` and returned unchanged."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Json]

    text: str


class RerankBody(EngineBody):
    """A query and its documents. Without a positive `top_n` every document is returned.

    `truncate_prompt_tokens` may be -1, which truncates documents to the model's own limit, on the
    right unless `truncation_side` is `left`. A document is one chunk, so it is within every
    `max_chunks_per_doc`. A document above `max_tokens_per_doc` is an error: it is never cut there.
    """

    query: str
    documents: Annotated[list[str | Document], Field(min_length=1), ItemList()]
    model: ModelName | None = None
    top_n: Annotated[int, Field(ge=-1)] | None = TOP_N
    return_documents: bool | None = None
    return_text: bool | None = None
    return_len: bool = False
    truncate_prompt_tokens: Literal[-1] | None = None
    truncation_side: Literal["left", "right"] | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    max_chunks_per_doc: Annotated[int, Field(ge=1)] | None = None
    overlap_tokens: Annotated[int, Field(ge=0)] | None = None
    raw_scores: Literal[False] | None = None
    use_activation: Literal[True] | None = None
    return_embeddings: Literal[False] | None = None
    kwargs: Accepted = None
    encoding_format: Accepted = None

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
    def limit(self) -> int | None:
        """The number of documents to return; None for all."""
        return self.top_n if self.top_n is not None and self.top_n > 0 else None

    def returns_documents(self, default: bool) -> bool:
        """Return whether results carry their documents."""
        given = self.return_text if self.return_documents is None else self.return_documents
        return default if given is None else given

    def options(self, parameters: Parameters) -> Options:
        """Return the options of the scores: no truncation unless requested."""
        truncation = merge_truncation(
            parameters,
            requested=self.truncate_prompt_tokens is not None,
            side=self.truncation_side,
            default="right",
        )
        return Options(truncation)


class RerankResult(BaseModel):
    """One document. `relevance_score` is the logistic of the raw, from 0 to 1.

    It is null for an empty document that has no score.
    """

    index: int
    relevance_score: float | None
    document: Document | None = None


class RerankUsage(BaseModel):
    """Tokens of all pairs."""

    prompt_tokens: int
    total_tokens: int


class RerankMeta(BaseModel):
    """Metadata that Cohere's clients expect.

    `warnings` name the documents without a score; `tokens` are there with `return_len`.
    """

    api_version: dict[str, str]
    billed_units: dict[str, int]
    warnings: list[str] | None = None
    tokens: dict[str, int] | None = None


class RerankReply(BaseModel):
    """The documents, best first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage
    meta: RerankMeta


@router.post("/v1/rerank", response_model=RerankReply)
@router.post("/compat/jina/{model}/v1/rerank", response_model=RerankReply)
@router.post("/compat/vllm/{model}/rerank", response_model=RerankReply)
@router.post("/compat/vllm/{model}/v1/rerank", response_model=RerankReply)
async def rerank_v1(request: Request, body: RerankBody, parameters: ForeignParameters) -> Response:
    """Rerank as Jina and vLLM do: results carry documents unless `return_documents` is false."""
    return await _rerank(request, body, parameters, with_documents=body.returns_documents(True))


@router.post("/v2/rerank", response_model=RerankReply)
@router.post("/compat/cohere/{model}/v1/rerank", response_model=RerankReply)
@router.post("/compat/cohere/{model}/v2/rerank", response_model=RerankReply)
async def rerank_v2(request: Request, body: RerankBody, parameters: ForeignParameters) -> Response:
    """Rerank as Cohere does: results carry documents only if `return_documents` is true."""
    return await _rerank(request, body, parameters, with_documents=body.returns_documents(False))


async def _rerank(
    request: Request, body: RerankBody, parameters: Parameters, *, with_documents: bool
) -> Response:
    """Return the ranking; see `ranked_documents`."""
    served, texts = select_model(request, parameters, body.model), body.texts
    reply = await score(
        request,
        served,
        [pair_item(served, body.query, text) for text in texts],
        parameters=parameters,
        lane="interactive",
        options=body.options(parameters),
    )
    _check_tokens(reply.results, body.max_tokens_per_doc)
    best = ranked_documents(reply, texts, _sort_key)[: body.limit]
    documents = body.objects if with_documents else None
    tokens = reply.usage.tokens
    return json_response(
        {
            "id": f"rerank-{secrets.token_hex(16)}",
            "model": reply.model,
            "results": [_entry(result, documents) for result in best],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": _meta(reply, with_tokens=body.return_len),
        }
    )


def _check_tokens(results: list[ItemResult], limit: int | None) -> None:
    """Refuse documents that another server would have cut to `limit` tokens.

    Only the tokens of query and document together are known; up to the limit nothing would be cut.

    Raises:
        InvalidRequest: a document may be longer than the limit.
    """
    if limit is None:
        return
    for result in results:
        tokens = result.tokens + result.details.get("truncated_tokens", 0)
        if tokens > limit:
            raise InvalidRequest(
                f"documents.{result.index}: {tokens} tokens with the query, more than "
                f"max_tokens_per_doc, which is {limit}",
                hint=str(field_hint(["max_tokens_per_doc"])),
            )


def _meta(reply: ScoreReply, *, with_tokens: bool) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": 1},
    }
    empty = [result.index for result in reply.results if result.error is not None]
    if empty:
        meta["warnings"] = [f"documents.{index} is empty and has no score" for index in empty]
    if with_tokens:
        meta["tokens"] = {"input_tokens": reply.usage.tokens, "output_tokens": 0}
    return meta


def _sort_key(result: ItemResult) -> tuple[float, float]:
    """Return the relevance, then the raw, which orders results of equal rounded relevance."""
    return probability(result), -math.inf if result.raw is None else result.raw


def _entry(result: ItemResult, documents: list[dict[str, Any]] | None) -> dict[str, Any]:
    relevance = None if result.error is not None else probability(result)
    entry: dict[str, Any] = {"index": result.index, "relevance_score": relevance}
    return entry if documents is None else {**entry, "document": documents[result.index]}
