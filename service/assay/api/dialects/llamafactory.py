"""LLaMA-Factory's reward API for PPO: whole decoded texts in, scores out."""

import secrets
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from assay.api.dialects._chat_templates import turns_of, without_end
from assay.api.dialects._items import Fields, conversation, single
from assay.api.dialects._service import TRUNCATION, numbers, options_of, resolve_model, score
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.json import json_response
from assay.api.schemas import Priority, Timeout
from assay.served_model import ServedModel

# The client waits for ever, and any failure ends its run: better late.
PATIENCE = 600.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class LlamaFactoryBody(BaseModel):
    """`messages` are texts, each a conversation in the policy's own template. `model` is what the
    client always says, and is not read: the path names the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    messages: list[str]


class LlamaFactoryReply(BaseModel):
    """Scores in the order of `messages`."""

    id: str
    object: Literal["score.evaluation"]
    model: str
    scores: list[float]


@router.post("/v1/score/evaluation", response_model=LlamaFactoryReply, openapi_extra=TRUNCATION)
@router.post(
    "/compat/llamafactory/{model}", response_model=LlamaFactoryReply, openapi_extra=TRUNCATION
)
async def llamafactory(
    request: Request,
    body: LlamaFactoryBody,
    model: str | None = None,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """For LLaMA-Factory: scores of decoded conversations. One without a score fails the request."""
    served = resolve_model(request, model)
    items = [_item(served, text) for text in body.messages]
    reply = await score(
        request, served, items, timeout, priority, patience=PATIENCE, options=options_of(request)
    )
    return json_response(
        {
            "id": f"scoreval-{secrets.token_hex(16)}",
            "object": "score.evaluation",
            "model": reply.model,
            "scores": numbers(reply),
        }
    )


def _item(served: ServedModel, text: str) -> Fields:
    """The turns, where a known template tells them; else the text as it is."""
    turns = turns_of(text)
    if turns is None or len(turns) < 2 or turns[-1]["role"] != "assistant":
        return single(served, text)
    last = {**turns[-1], "content": without_end(turns[-1]["content"])}
    return conversation(served, [*turns[:-1], last])
