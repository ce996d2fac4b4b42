"""SGLang's native `/classify`, and `/v1/embeddings` as verl reads rewards: raw logits."""

import base64
import secrets
import struct
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from assay.api.dialects._items import text_item
from assay.api.dialects._service import RAW_OPTIONS, resolve_model, score, scores_of
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.schemas import Priority, Timeout
from assay.types import Lane, ScoreReply

Texts = str | Annotated[list[str], Field(min_length=1)]

# verl waits indefinitely, and gives up at once on a 4xx, including the 429 of a full queue.
CLIENT_TIMEOUT_SECONDS = 300.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class SglangClassifyBody(BaseModel):
    """Texts, rendered with the reward model's template. For a single text the reply is no list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Texts
    model: str | None = None


class EmbeddingsBody(BaseModel):
    """Texts in the format of OpenAI's embeddings; the embedding's only component is the reward."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Texts
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


class SglangMeta(BaseModel):
    """The id of the entry and the tokens of the text."""

    id: str
    prompt_tokens: int


class SglangEntry(BaseModel):
    """One text's raw logit, the only component."""

    embedding: list[float]
    meta_info: SglangMeta


class Embedding(BaseModel):
    """One text's raw logit, the only component; in base64 a little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """Tokens of all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(BaseModel):
    """One entry per text, in the order of the request."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: EmbeddingsUsage


Entries = SglangEntry | list[SglangEntry]


@router.post("/compat/sglang/{model}/classify", response_model=Entries)
async def classify_texts(
    request: Request,
    model: str,
    *,
    body: SglangClassifyBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """Score texts for clients of SGLang's /classify: raw logits as embeddings of length one."""
    return await classify_reply(
        request,
        model,
        body,
        timeout=timeout,
        lane=priority,
        client_timeout=CLIENT_TIMEOUT_SECONDS,
    )


@router.post("/v1/embeddings", response_model=EmbeddingsReply)
async def embeddings(
    request: Request, body: EmbeddingsBody, timeout: Timeout = None, priority: Priority = "training"
) -> Response:
    """Score texts as verl reads rewards from SGLang: raw logits as embeddings of length one."""
    return await _embeddings_reply(request, body.model, body, timeout=timeout, lane=priority)


@router.post("/compat/sglang/{model}/v1/embeddings", response_model=EmbeddingsReply)
async def embeddings_with_model(
    request: Request,
    model: str,
    *,
    body: EmbeddingsBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """Score texts with the model in the path; verl sends a checkpoint's path in the body."""
    return await _embeddings_reply(
        request,
        model,
        body,
        timeout=timeout,
        lane=priority,
        client_timeout=CLIENT_TIMEOUT_SECONDS,
    )


async def classify_reply(
    request: Request,
    model: str | None,
    body: SglangClassifyBody,
    *,
    timeout: int | None,
    lane: Lane,
    client_timeout: float | None = None,
) -> Response:
    """Return the reply of `/classify`."""
    reply = await _score_texts(
        request, model, body.text, timeout=timeout, lane=lane, client_timeout=client_timeout
    )
    entries = [
        {
            "embedding": [value],
            "meta_info": {"id": secrets.token_hex(16), "prompt_tokens": result.tokens},
        }
        for value, result in zip(scores_of(reply), reply.results, strict=True)
    ]
    return json_response(entries[0] if isinstance(body.text, str) else entries)


async def _embeddings_reply(
    request: Request,
    model: str | None,
    body: EmbeddingsBody,
    *,
    timeout: int | None,
    lane: Lane,
    client_timeout: float | None = None,
) -> Response:
    reply = await _score_texts(
        request, model, body.input, timeout=timeout, lane=lane, client_timeout=client_timeout
    )
    tokens = reply.usage.tokens
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": _encode(value, body.encoding_format)}
        for index, value in enumerate(scores_of(reply))
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response({"object": "list", "model": reply.model, "data": data, "usage": usage})


async def _score_texts(
    request: Request,
    model: str | None,
    texts: Texts,
    *,
    timeout: int | None,
    lane: Lane,
    client_timeout: float | None,
) -> ScoreReply:
    served = resolve_model(request, model)
    items = [text_item(served, text) for text in ([texts] if isinstance(texts, str) else texts)]
    return await score(
        request,
        served,
        items,
        timeout=timeout,
        lane=lane,
        client_timeout=client_timeout,
        options=RAW_OPTIONS,
    )


def _encode(value: float, encoding: Literal["float", "base64"]) -> list[float] | str:
    if encoding == "float":
        return [value]
    return base64.b64encode(struct.pack("<f", value)).decode()
