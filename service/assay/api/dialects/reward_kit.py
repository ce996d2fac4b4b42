"""reward-kit's reward server: a conversation in, its score with metrics out."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from assay.api.dialects._items import ChatMessage, conversation, turns
from assay.api.dialects._service import TRUNCATION, options_of, resolve_model, score, whole
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.json import json_response
from assay.api.schemas import Priority, Timeout

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class RewardKitBody(BaseModel):
    """A conversation whose last message is scored. `original_messages` is part of it and not read.
    Fields beside these are the dataset's: what they say of the item's context joins it.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, JsonValue]

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    original_messages: list[ChatMessage] | None = None

    @model_validator(mode="after")
    def _names_no_model(self) -> "RewardKitBody":
        if "model" in self.__pydantic_extra__:
            raise ValueError("the path names the model; a body with one is for another route")
        return self


class RewardKitMetric(BaseModel):
    """One channel. `success` stays open: no threshold is drawn here."""

    score: float
    success: bool | None
    reason: str


class RewardKitReply(BaseModel):
    """The score, and each channel as a metric of its name."""

    score: float
    reason: str
    metrics: dict[str, RewardKitMetric]


@router.post(
    "/compat/reward-kit/{model}/reward", response_model=RewardKitReply, openapi_extra=TRUNCATION
)
async def reward_kit(
    request: Request,
    model: str,
    body: RewardKitBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """For reward-kit: a conversation's score. No score fails the request."""
    served = resolve_model(request, model)
    item = conversation(served, turns(body.messages), body.__pydantic_extra__)
    reply = await score(request, served, [item], timeout, priority, options=options_of(request))
    (result,) = whole(reply)
    reason = f"scored by {reply.model}"
    metrics = {
        name: {"score": value, "success": None, "reason": reason}
        for name, value in result.channels.items()
    }
    return json_response({"score": result.score, "reason": reason, "metrics": metrics})
