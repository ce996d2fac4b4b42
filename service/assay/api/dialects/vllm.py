"""vLLM's pooling routes, `/classify` and `/pooling`, as verl and other clients use them.

One thing is not as vLLM has it: a raw logit is answered unless activation is asked for.
"""

import secrets
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from assay.api.dialects._items import ChatMessage, Fields, conversation, single, turns
from assay.api.dialects._service import probability, resolve_model, score, whole
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.json import json_response
from assay.api.schemas import Priority, Timeout
from assay.served_model import ServedModel
from assay.types import ItemResult, Lane, ScoreReply
from assay_models.base import Options

# verl waits for ever, and gives up at once on a 4xx, the 429 of a full queue included.
PATIENCE = 300.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class _PoolingBody(BaseModel):
    """What both routes take: `input`, texts as the model's tokenizer shall read them, or one
    conversation as `messages`.

    `truncate_prompt_tokens` may be -1, which cuts to the model's own limit. `use_activation` gives
    the logistic of the raw. Scheduling and tracing fields are accepted and change no number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    input: str | Annotated[list[str], Field(min_length=1)] | None = None
    messages: list[ChatMessage] | None = None
    use_activation: bool | None = None
    truncate_prompt_tokens: Literal[-1] | None = None
    truncation_side: Literal["left", "right"] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: Literal[False] = False
    continue_final_message: Literal[False] = False
    user: str | None = None
    request_id: str | None = None
    priority: int = 0
    cache_salt: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "_PoolingBody":
        if (self.input is None) == (self.messages is None):
            raise ValueError("give either input or messages")
        if self.add_special_tokens is (self.input is None):
            raise ValueError("special tokens are added to input, and to messages by the template")
        return self

    def items(self, served: ServedModel) -> list[Fields]:
        """In the fields of the model's family."""
        if self.messages is not None:
            return [conversation(served, turns(self.messages))]
        texts = [self.input] if isinstance(self.input, str) else self.input or []
        return [single(served, text) for text in texts]

    @property
    def options(self) -> Options:
        """Raw unless activated; too long is an error unless the request asks for a cut."""
        cut = self.truncate_prompt_tokens is not None
        return Options(
            (self.truncation_side or "left") if cut else "error", not self.use_activation
        )

    def number(self, result: ItemResult) -> float | None:
        """What is served of a result."""
        return probability(result) if self.use_activation else result.score


class VllmClassifyBody(_PoolingBody):
    """A request to classify; `model` may be left out where one is served."""


class VllmPoolingBody(_PoolingBody):
    """A request to pool; of the tasks there is `classify`."""

    task: Literal["classify"] | None = None
    encoding_format: Literal["float"] = "float"


class VllmUsage(BaseModel):
    """Tokens of all items."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


class VllmClass(BaseModel):
    """One text's outputs: a single number, the raw or what was made of it."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class VllmClassifyReply(BaseModel):
    """One entry a text, in the order of the request."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[VllmClass]
    usage: VllmUsage


class VllmPooled(BaseModel):
    """One text's outputs."""

    index: int
    object: Literal["pooling"]
    data: list[float]


class VllmPoolingReply(BaseModel):
    """One entry a text, in the order of the request."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[VllmPooled]
    usage: VllmUsage


@router.post("/compat/vllm/{model}/classify", response_model=VllmClassifyReply)
async def classify_with(
    request: Request,
    model: str,
    body: VllmClassifyBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """For clients of vLLM: raw logits; their logistic with `use_activation`. The path names the
    model, because verl puts the path of a checkpoint into the body.
    """
    return await classified(request, model, body, timeout, priority, PATIENCE)


@router.post("/pooling", response_model=VllmPoolingReply)
async def pooling(
    request: Request,
    body: VllmPoolingBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """For clients of vLLM: the same numbers as /classify, each as a vector of one."""
    return await _pooled(request, body.model, body, timeout, priority)


@router.post("/compat/vllm/{model}/pooling", response_model=VllmPoolingReply)
async def pooling_with(
    request: Request,
    model: str,
    body: VllmPoolingBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """The same with the model of the path."""
    return await _pooled(request, model, body, timeout, priority, PATIENCE)


async def classified(
    request: Request,
    model: str | None,
    body: VllmClassifyBody,
    timeout: int | None,
    lane: Lane,
    patience: float | None = None,
) -> Response:
    """The reply of `/classify`."""
    reply = await _scored(request, model, body, timeout, lane, patience)
    data = [
        {
            "index": result.index,
            "label": next(iter(result.channels), None),
            "probs": [body.number(result)],
            "num_classes": 1,
        }
        for result in whole(reply)
    ]
    return json_response({"id": f"classify-{secrets.token_hex(16)}", **_frame(reply), "data": data})


async def _pooled(
    request: Request,
    model: str | None,
    body: VllmPoolingBody,
    timeout: int | None,
    lane: Lane,
    patience: float | None = None,
) -> Response:
    reply = await _scored(request, model, body, timeout, lane, patience)
    data = [
        {"index": result.index, "object": "pooling", "data": [body.number(result)]}
        for result in whole(reply)
    ]
    return json_response({"id": f"pool-{secrets.token_hex(16)}", **_frame(reply), "data": data})


async def _scored(
    request: Request,
    model: str | None,
    body: _PoolingBody,
    timeout: int | None,
    lane: Lane,
    patience: float | None,
) -> ScoreReply:
    served = resolve_model(request, model)
    items, options = body.items(served), body.options
    return await score(request, served, items, timeout, lane, patience=patience, options=options)


def _frame(reply: ScoreReply) -> dict[str, Any]:
    tokens = reply.usage.tokens
    usage = {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }
    return {"object": "list", "created": int(time.time()), "model": reply.model, "usage": usage}
