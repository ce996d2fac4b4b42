"""SGLang's native `/classify`, and `/v1/embeddings` as verl reads rewards: raw logits."""

import base64
import secrets
import struct
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from assay.api.dialects._items import text_item
from assay.api.dialects._service import score, scores_of, select_model
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.parameters import ForeignParameters, Parameters
from assay.api.schemas import EngineBody, ItemList, ModelName
from assay.types import ScoreReply
from assay_models.base import Options

Texts = Annotated[str | Annotated[list[str], Field(min_length=1)], ItemList()]

# verl waits indefinitely, and gives up at once on a 4xx, including the 429 of a full queue.
CLIENT_TIMEOUT_SECONDS = 300.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class SglangClassifyBody(EngineBody):
    """Texts, rendered with the reward model's template. For a single text the reply is no list."""

    text: Texts
    model: ModelName | None = None


class EmbeddingsBody(EngineBody):
    """Texts in the format of OpenAI's embeddings; the embedding's only component is the reward."""

    input: Texts
    model: ModelName | None = None
    encoding_format: Literal["float", "base64"] = "float"


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
async def classify(
    request: Request, body: SglangClassifyBody, parameters: ForeignParameters
) -> Response:
    """Score texts for clients of SGLang's /classify: raw logits as embeddings of length one."""
    reply = await _score_texts(request, body.text, body.model, parameters)
    entries = [
        {
            "embedding": [value],
            "meta_info": {"id": secrets.token_hex(16), "prompt_tokens": result.tokens},
        }
        for value, result in zip(scores_of(reply), reply.results, strict=True)
    ]
    return json_response(entries[0] if isinstance(body.text, str) else entries)


@router.post("/v1/embeddings", response_model=EmbeddingsReply)
@router.post("/compat/sglang/{model}/v1/embeddings", response_model=EmbeddingsReply)
@router.post("/compat/vllm/{model}/v1/embeddings", response_model=EmbeddingsReply)
async def embeddings(
    request: Request, body: EmbeddingsBody, parameters: ForeignParameters
) -> Response:
    """Score texts as verl reads rewards from SGLang: raw logits as embeddings of length one.

    A path may name the model, because verl sends a checkpoint's path in the body.
    """
    reply = await _score_texts(request, body.input, body.model, parameters)
    tokens = reply.usage.tokens
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": _encode(value, body.encoding_format)}
        for index, value in enumerate(scores_of(reply))
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response({"object": "list", "model": reply.model, "data": data, "usage": usage})


async def _score_texts(
    request: Request, texts: Texts, model: str | None, parameters: Parameters
) -> ScoreReply:
    served = select_model(request, parameters, model)
    items = [text_item(served, text) for text in ([texts] if isinstance(texts, str) else texts)]
    return await score(
        request,
        served,
        items,
        parameters=parameters,
        client_timeout=None if parameters.path_model is None else CLIENT_TIMEOUT_SECONDS,
        options=Options(parameters.truncation or "error", raw=True),
    )


def _encode(value: float, encoding: Literal["float", "base64"]) -> list[float] | str:
    if encoding == "float":
        return [value]
    return base64.b64encode(struct.pack("<f", value)).decode()
