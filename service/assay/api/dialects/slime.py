"""slime's remote reward: one answer in, the reward itself out, as a number or an object."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, JsonValue

from assay.api.dialects._items import ChatMessage, answer, turns
from assay.api.dialects._service import TRUNCATION, numbers, options_of, resolve_model, score, whole
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.json import json_response
from assay.api.schemas import Priority, Timeout
from assay.types import Lane, ScoreReply

# The client waits 120 s.
PATIENCE = 100.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class SlimeBody(BaseModel):
    """One answer. A `label` that is an object gives the item its `evidence`, `tests` or `language`,
    as far as the model's family knows them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str | list[ChatMessage]
    response: str
    label: JsonValue = None


class SlimeReward(BaseModel):
    """The score beside the model's channels, each by its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]

    score: float


@router.post("/compat/slime/{model}", response_model=float, openapi_extra=TRUNCATION)
async def slime(
    request: Request,
    model: str,
    body: SlimeBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """For slime: the reward, a bare number. An answer without a score fails the request."""
    (reward,) = numbers(await _scored(request, model, body, timeout, priority))
    return json_response(reward)


@router.post("/compat/slime/{model}/channels", response_model=SlimeReward, openapi_extra=TRUNCATION)
async def slime_channels(
    request: Request,
    model: str,
    body: SlimeBody,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """For slime with `--reward-key score`: the score and the model's channels, as an object."""
    (result,) = whole(await _scored(request, model, body, timeout, priority))
    return json_response({**result.channels, "score": result.score})


async def _scored(
    request: Request, model: str, body: SlimeBody, timeout: int | None, lane: Lane
) -> ScoreReply:
    served = resolve_model(request, model)
    prompt = body.prompt if isinstance(body.prompt, str) else turns(body.prompt)
    item = answer(served, prompt, body.response, body.label)
    return await score(
        request, served, [item], timeout, lane, patience=PATIENCE, options=options_of(request)
    )
