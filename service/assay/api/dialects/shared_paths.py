"""The paths that two dialects share. Only here a body's fields decide its dialect."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from pydantic import Discriminator, Tag

from assay.api.dialects import cohere, sglang, tei, vllm
from assay.api.errors import PROBLEMS
from assay.api.json_route import JsonRoute
from assay.api.parameters import ForeignParameters

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


def _rerank_dialect(body: Any) -> str:
    """Return the dialect: TEI sends `texts`, vLLM `documents`."""
    return "TEI" if isinstance(body, Mapping) and "texts" in body else "vLLM"


def _classify_dialect(body: Any) -> str:
    """Return the dialect: SGLang sends `text`, vLLM `input` or `messages`."""
    return "SGLang" if isinstance(body, Mapping) and "text" in body else "vLLM"


ClassifyBodies = Annotated[
    Annotated[sglang.SglangClassifyBody, Tag("SGLang")]
    | Annotated[vllm.VllmClassifyBody, Tag("vLLM")],
    Discriminator(_classify_dialect),
    Body(),
]
RerankBodies = Annotated[
    Annotated[tei.TeiRerankBody, Tag("TEI")] | Annotated[cohere.RerankBody, Tag("vLLM")],
    Discriminator(_rerank_dialect),
    Body(),
]


@router.post("/classify", response_model=vllm.VllmClassifyReply | sglang.Entries)
async def classify(
    request: Request, body: ClassifyBodies, parameters: ForeignParameters
) -> Response:
    """Return raw logits to clients of vLLM (`input`, `messages`) and of SGLang (`text`)."""
    if isinstance(body, sglang.SglangClassifyBody):
        return await sglang.classify(request, body, parameters)
    return await vllm.classify(request, body, parameters)


@router.post("/rerank", response_model=list[tei.TeiRank] | cohere.RerankReply)
async def rerank(request: Request, body: RerankBodies, parameters: ForeignParameters) -> Response:
    """Rerank for clients of text-embeddings-inference (`texts`) and of vLLM (`documents`)."""
    if isinstance(body, tei.TeiRerankBody):
        return await tei.rerank_texts(request, body, parameters)
    return await cohere.rerank_v1(request, body, parameters)
