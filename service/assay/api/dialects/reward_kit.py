"""reward-kit's reward server: a conversation in, its score with metrics out."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from assay.api.dialects._items import ChatMessages, conversation_item, text_messages
from assay.api.dialects._service import require_scores, score, select_model
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.json_values import Json
from assay.api.parameters import ForeignParameters
from assay_models.base import NullIsAbsent

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class RewardKitBody(NullIsAbsent):
    """A conversation whose last message is scored. `original_messages` is ignored.

    Other fields are the dataset's; those that are context (`evidence`, `tests`, …) and that the
    model's family has are added to the item.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Json]

    messages: Annotated[ChatMessages, Field(min_length=1)]
    original_messages: ChatMessages | None = None

    @model_validator(mode="after")
    def _reject_model(self) -> "RewardKitBody":
        if "model" in self.__pydantic_extra__:
            raise ValueError("the path names the model; a body with one is for another route")
        return self


class RewardKitMetric(BaseModel):
    """One channel. `success` is null, because no threshold is applied."""

    score: float
    success: bool | None
    reason: str


class RewardKitReply(BaseModel):
    """The score, and each channel as a metric."""

    score: float
    reason: str
    metrics: dict[str, RewardKitMetric]


@router.post("/compat/reward-kit/{model}/reward", response_model=RewardKitReply)
async def reward_kit(
    request: Request, body: RewardKitBody, parameters: ForeignParameters
) -> Response:
    """Score a conversation for reward-kit. An item without a score fails the request."""
    served = select_model(request, parameters)
    item = conversation_item(served, text_messages(body.messages), body.__pydantic_extra__)
    reply = await score(request, served, [item], parameters=parameters)
    (result,) = require_scores(reply)
    reason = f"scored by {reply.model}"
    metrics = {
        name: {"score": value, "success": None, "reason": reason}
        for name, value in result.channels.items()
    }
    return json_response({"score": result.score, "reason": reason, "metrics": metrics})
