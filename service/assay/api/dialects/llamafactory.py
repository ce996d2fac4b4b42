"""LLaMA-Factory's reward API for PPO: decoded conversations in, scores out."""

import secrets
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from assay.api.dialects._chat_templates import parse_messages, strip_trailing_tokens
from assay.api.dialects._items import Fields, conversation_item, text_item
from assay.api.dialects._service import score, scores_of, select_model
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.parameters import ForeignParameters
from assay.api.schemas import Accepted, Body, ItemList
from assay.served_model import ServedModel

# The client waits indefinitely, and any failure ends its run, so a late reply is better.
CLIENT_TIMEOUT_SECONDS = 600.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class LlamaFactoryBody(Body):
    """`messages` are texts, each a conversation rendered with the policy's own template.

    `model` is a constant of the client and is ignored: the path or the query names the model.
    """

    model: Accepted
    messages: Annotated[list[str], ItemList()]


class LlamaFactoryReply(BaseModel):
    """The scores, in the order of `messages`."""

    id: str
    object: Literal["score.evaluation"]
    model: str
    scores: list[float]


@router.post("/v1/score/evaluation", response_model=LlamaFactoryReply)
@router.post("/compat/llamafactory/{model}", response_model=LlamaFactoryReply)
async def llamafactory(
    request: Request, body: LlamaFactoryBody, parameters: ForeignParameters
) -> Response:
    """Score decoded conversations for LLaMA-Factory. An item without a score fails the request."""
    served = select_model(request, parameters)
    items = [_item(served, text) for text in body.messages]
    reply = await score(
        request,
        served,
        items,
        parameters=parameters,
        client_timeout=CLIENT_TIMEOUT_SECONDS,
    )
    return json_response(
        {
            "id": f"scoreval-{secrets.token_hex(16)}",
            "object": "score.evaluation",
            "model": reply.model,
            "scores": scores_of(reply),
        }
    )


def _item(served: ServedModel, text: str) -> Fields:
    """Return the messages if a known template rendered the text, else the text unchanged."""
    messages = parse_messages(text)
    if messages is None or len(messages) < 2 or messages[-1]["role"] != "assistant":
        return text_item(served, text)
    last = {**messages[-1], "content": strip_trailing_tokens(messages[-1]["content"])}
    return conversation_item(served, [*messages[:-1], last])
