"""slime's remote reward: one response in, its reward out, as a number or an object."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from assay.api.dialects._items import ChatMessages, response_item, text_messages
from assay.api.dialects._service import require_scores, score, scores_of, select_model
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.json_values import Json
from assay.api.parameters import ForeignParameters, Parameters
from assay.api.schemas import Body
from assay.types import ScoreReply

# The client waits 120 s.
CLIENT_TIMEOUT_SECONDS = 100.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class SlimeBody(Body):
    """One response. A `label` that is an object adds its context (`evidence`, `tests`, `language`,
    …) to the item, as far as the model's family has these fields.
    """

    prompt: str | ChatMessages
    response: str
    label: Json = None


class SlimeReward(BaseModel):
    """The score and the model's channels, by name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]

    score: float


@router.post("/compat/slime/{model}", response_model=float)
async def slime(request: Request, body: SlimeBody, parameters: ForeignParameters) -> Response:
    """Score a response for slime; the reply is a bare number. No score fails the request."""
    (reward,) = scores_of(await _score(request, body, parameters))
    return json_response(reward)


@router.post("/compat/slime/{model}/channels", response_model=SlimeReward)
async def slime_channels(
    request: Request, body: SlimeBody, parameters: ForeignParameters
) -> Response:
    """Score a response for slime with `--reward-key score`; the reply has the channels too."""
    reply = await _score(request, body, parameters)
    (result,) = require_scores(reply)
    return json_response({**result.channels, "score": result.score})


async def _score(request: Request, body: SlimeBody, parameters: Parameters) -> ScoreReply:
    served = select_model(request, parameters)
    prompt = body.prompt if isinstance(body.prompt, str) else text_messages(body.prompt)
    item = response_item(served, prompt, body.response, body.label)
    return await score(
        request,
        served,
        [item],
        parameters=parameters,
        client_timeout=CLIENT_TIMEOUT_SECONDS,
    )
