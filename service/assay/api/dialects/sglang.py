"""SGLang's native `/classify`, and `/v1/embeddings` as verl reads rewards from it: raw logits."""

import base64
import secrets
import struct
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from assay.api.dialects._items import single
from assay.api.dialects._service import RAW, numbers, resolve_model, score
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.json import json_response
from assay.api.schemas import Priority, Timeout
from assay.types import Lane, ScoreReply

Texts = str | Annotated[list[str], Field(min_length=1)]

# verl waits for ever, and gives up at once on a 4xx, the 429 of a full queue included.
PATIENCE = 300.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class SglangClassifyBody(BaseModel):
    """Texts as the reward model's template has made them. One text gets one entry, not a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Texts
    model: str | None = None


class EmbeddingsBody(BaseModel):
    """The same for OpenAI's clients; of embeddings there is one number, the reward."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Texts
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


class SglangMeta(BaseModel):
    """Tokens of the text."""

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
    """One entry a text, in the order of the request."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: EmbeddingsUsage


Entries = SglangEntry | list[SglangEntry]


@router.post("/compat/sglang/{model}/classify", response_model=Entries)
async def classify_texts(
    request: Request,
    model: str,
    body: SglangClassifyBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """For clients of SGLang's /classify: raw logits as embeddings of length one."""
    return await entries(request, model, body, timeout, priority, PATIENCE)


@router.post("/v1/embeddings", response_model=EmbeddingsReply)
async def embeddings(
    request: Request, body: EmbeddingsBody, timeout: Timeout = None, priority: Priority = "training"
) -> Response:
    """Rewards as verl reads them from SGLang: a raw logit as an embedding of length one."""
    return await _embedded(request, body.model, body, timeout, priority)


@router.post("/compat/sglang/{model}/v1/embeddings", response_model=EmbeddingsReply)
async def embeddings_with(
    request: Request,
    model: str,
    body: EmbeddingsBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """The same with the model of the path; verl puts the path of a checkpoint into the body."""
    return await _embedded(request, model, body, timeout, priority, PATIENCE)


async def entries(
    request: Request,
    model: str | None,
    body: SglangClassifyBody,
    timeout: int | None,
    lane: Lane,
    patience: float | None = None,
) -> Response:
    """The reply of `/classify`."""
    reply = await _scored(request, model, body.text, timeout, lane, patience)
    told = [
        {
            "embedding": [number],
            "meta_info": {"id": secrets.token_hex(16), "prompt_tokens": result.tokens},
        }
        for number, result in zip(numbers(reply), reply.results, strict=True)
    ]
    return json_response(told[0] if isinstance(body.text, str) else told)


async def _embedded(
    request: Request,
    model: str | None,
    body: EmbeddingsBody,
    timeout: int | None,
    lane: Lane,
    patience: float | None = None,
) -> Response:
    reply = await _scored(request, model, body.input, timeout, lane, patience)
    tokens = reply.usage.tokens
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": _encoded(number, body.encoding_format)}
        for index, number in enumerate(numbers(reply))
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response({"object": "list", "model": reply.model, "data": data, "usage": usage})


async def _scored(
    request: Request,
    model: str | None,
    texts: Texts,
    timeout: int | None,
    lane: Lane,
    patience: float | None,
) -> ScoreReply:
    served = resolve_model(request, model)
    listed = [texts] if isinstance(texts, str) else texts
    items = [single(served, text) for text in listed]
    return await score(request, served, items, timeout, lane, patience=patience, options=RAW)


def _encoded(number: float, form: Literal["float", "base64"]) -> list[float] | str:
    if form == "float":
        return [number]
    return base64.b64encode(struct.pack("<f", number)).decode()
