"""The paths that two engines have in common. Here, and nowhere else, a body says whose it is."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from pydantic import Discriminator, Tag

from assay.api.dialects import cohere, sglang, tei, vllm
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.schemas import Priority, Timeout

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


def _reranker(body: Any) -> str:
    """TEI has `texts`, vLLM has `documents`."""
    return "TEI" if isinstance(body, Mapping) and "texts" in body else "vLLM"


def _classifier(body: Any) -> str:
    """SGLang has `text`, vLLM `input` or `messages`."""
    return "SGLang" if isinstance(body, Mapping) and "text" in body else "vLLM"


ClassifyBodies = Annotated[
    Annotated[sglang.SglangClassifyBody, Tag("SGLang")]
    | Annotated[vllm.VllmClassifyBody, Tag("vLLM")],
    Discriminator(_classifier),
    Body(),
]
RerankBodies = Annotated[
    Annotated[tei.TeiRerankBody, Tag("TEI")] | Annotated[cohere.RerankBody, Tag("vLLM")],
    Discriminator(_reranker),
    Body(),
]


@router.post("/classify", response_model=vllm.VllmClassifyReply | sglang.Entries)
async def classify(
    request: Request,
    body: ClassifyBodies,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """Raw logits for clients of vLLM (`input`, `messages`) and of SGLang (`text`)."""
    if isinstance(body, sglang.SglangClassifyBody):
        return await sglang.entries(request, body.model, body, timeout, priority)
    return await vllm.classified(request, body.model, body, timeout, priority)


@router.post("/rerank", response_model=list[tei.TeiRank] | cohere.RerankReply)
async def rerank(
    request: Request,
    body: RerankBodies,
    model: str | None = None,
    timeout: Timeout = None,
    priority: Priority = "interactive",
) -> Response:
    """Rerank for clients of text-embeddings-inference (`texts`) and of vLLM (`documents`)."""
    if isinstance(body, tei.TeiRerankBody):
        return await tei.ranked(request, model, body, timeout, priority)
    return await cohere.rerank_v1(request, body, timeout, priority)
