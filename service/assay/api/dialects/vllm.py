"""vLLM's pooling routes, `/classify` and `/pooling`, as verl and other clients use them.

One deviation from vLLM: the reply holds raw logits unless the request asks for activation.
"""

import secrets
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, model_validator

from assay.api.dialects._items import (
    ChatMessages,
    Fields,
    conversation_item,
    text_item,
    text_messages,
)
from assay.api.dialects._service import (
    merge_truncation,
    probability,
    require_scores,
    score,
    select_model,
)
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.parameters import ForeignParameters, Parameters
from assay.api.schemas import EngineBody, ItemList, ModelName
from assay.served_model import ServedModel
from assay.types import ItemResult, ScoreReply
from assay_models.base import Options

# verl waits indefinitely, and gives up at once on a 4xx, including the 429 of a full queue.
CLIENT_TIMEOUT_SECONDS = 300.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class _PoolingBody(EngineBody):
    """The fields of both routes: `input`, texts to tokenize unchanged, or `messages`, one
    conversation.

    `truncate_prompt_tokens` may be -1, which truncates to the model's own limit. `use_activation`
    returns the logistic of the raw. Scheduling and tracing fields do not affect the scores.
    """

    model: ModelName | None = None
    input: Annotated[str | Annotated[list[str], Field(min_length=1)] | None, ItemList()] = None
    messages: ChatMessages | None = None
    use_activation: bool | None = None
    truncate_prompt_tokens: Literal[-1] | None = None
    truncation_side: Literal["left", "right"] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: Literal[False] = False
    continue_final_message: Literal[False] = False
    padding: Literal["do_not_pad"] | None = None
    embed_dtype: Literal["float32"] | None = None

    @model_validator(mode="after")
    def _check_input(self) -> "_PoolingBody":
        if (self.input is None) == (self.messages is None):
            raise ValueError("give either input or messages")
        if self.add_special_tokens is (self.input is None):
            raise ValueError("special tokens are added to input, and to messages by the template")
        return self

    def items(self, served: ServedModel) -> list[Fields]:
        """Return the items, in the fields of the model's family."""
        if self.messages is not None:
            return [conversation_item(served, text_messages(self.messages))]
        texts = [self.input] if isinstance(self.input, str) else self.input or []
        return [text_item(served, text) for text in texts]

    def options(self, parameters: Parameters) -> Options:
        """Return the options: raw unless activated, no truncation unless requested."""
        truncation = merge_truncation(
            parameters,
            requested=self.truncate_prompt_tokens is not None,
            side=self.truncation_side,
            default="left",
        )
        return Options(truncation, not self.use_activation)

    def value_of(self, result: ItemResult) -> float | None:
        """Return the value served for a result: its score as a logit, or activated."""
        return probability(result) if self.use_activation else result.score


class VllmClassifyBody(_PoolingBody):
    """A request to classify; `model` may be omitted if only one is served."""


class VllmPoolingBody(_PoolingBody):
    """A request to pool; the only supported task is `classify`."""

    task: Literal["classify"] | None = None
    encoding_format: Literal["float"] = "float"


class VllmUsage(BaseModel):
    """Tokens of all items."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


class VllmClass(BaseModel):
    """One text's output: a single value, the raw or its logistic."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class VllmClassifyReply(BaseModel):
    """One entry per text, in the order of the request."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[VllmClass]
    usage: VllmUsage


class VllmPooled(BaseModel):
    """One text's output."""

    index: int
    object: Literal["pooling"]
    data: list[float]


class VllmPoolingReply(BaseModel):
    """One entry per text, in the order of the request."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[VllmPooled]
    usage: VllmUsage


@router.post("/compat/vllm/{model}/classify", response_model=VllmClassifyReply)
async def classify(
    request: Request, body: VllmClassifyBody, parameters: ForeignParameters
) -> Response:
    """Return raw logits to clients of vLLM, or their logistic with `use_activation`.

    The path names the model, because verl sends a checkpoint's path in the body.
    """
    reply = await _score(request, body, parameters)
    data = [
        {
            "index": result.index,
            "label": next(iter(result.channels), None),
            "probs": [body.value_of(result)],
            "num_classes": 1,
        }
        for result in require_scores(reply)
    ]
    return json_response(
        {"id": f"classify-{secrets.token_hex(16)}", **_envelope(reply), "data": data}
    )


@router.post("/pooling", response_model=VllmPoolingReply)
@router.post("/compat/vllm/{model}/pooling", response_model=VllmPoolingReply)
async def pooling(
    request: Request, body: VllmPoolingBody, parameters: ForeignParameters
) -> Response:
    """Return the same values as /classify to clients of vLLM, each as a vector of length one."""
    reply = await _score(request, body, parameters)
    data = [
        {"index": result.index, "object": "pooling", "data": [body.value_of(result)]}
        for result in require_scores(reply)
    ]
    return json_response({"id": f"pool-{secrets.token_hex(16)}", **_envelope(reply), "data": data})


async def _score(request: Request, body: _PoolingBody, parameters: Parameters) -> ScoreReply:
    served = select_model(request, parameters, body.model)
    return await score(
        request,
        served,
        body.items(served),
        parameters=parameters,
        client_timeout=None if parameters.path_model is None else CLIENT_TIMEOUT_SECONDS,
        options=body.options(parameters),
    )


def _envelope(reply: ScoreReply) -> dict[str, Any]:
    tokens = reply.usage.tokens
    usage = {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }
    return {"object": "list", "created": int(time.time()), "model": reply.model, "usage": usage}
