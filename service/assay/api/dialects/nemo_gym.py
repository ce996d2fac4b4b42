"""NeMo-Gym's resources server: verify a rollout, and say that it failed where there is no score."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from assay.api.dialects._items import Fields, answer
from assay.api.dialects._service import TRUNCATION, options_of, resolve_model, score
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.json import json_response
from assay.api.schemas import Priority, Timeout
from assay.errors import InvalidRequest
from assay.served_model import ServedModel
from assay.types import ItemResult

Entry = Mapping[str, JsonValue]
VERDICT = frozenset(
    (
        "reward",
        "reward_components",
        "mask_sample",
        "failure_kind",
        "failure_reason",
        "_ng_failure_class",
        "_ng_failure_judge_error",
    )
)

# The client waits for ever, and a status that is not 200 ends its rollout.
PATIENCE = 300.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, JsonValue]


class CreateParams(_Open):
    """What the policy was asked: text, or entries of the Responses API."""

    input: str | list[dict[str, JsonValue]]


class PolicyResponse(_Open):
    """What it answered; only messages are scored."""

    output: list[dict[str, JsonValue]]


class VerifyBody(_Open):
    """One rollout. Of the fields beside these two, those that the model's family knows join the
    item, and all of them come back.
    """

    responses_create_params: CreateParams
    response: PolicyResponse


class VerifyReply(VerifyBody):
    """The rollout and its reward, or null and the class of the failure."""

    reward: float | None
    reward_components: dict[str, float] | None = None
    mask_sample: bool = False
    failure_reason: str | None = None
    failure_class: Literal["judge_failed"] | None = Field(None, alias="_ng_failure_class")
    judge_error: str | None = Field(None, alias="_ng_failure_judge_error")


class SeedBody(_Open):
    """Nothing is kept between requests."""


@router.post("/verify", response_model=VerifyReply, openapi_extra=TRUNCATION)
@router.post(
    "/compat/nemo-gym/{model}/verify", response_model=VerifyReply, openapi_extra=TRUNCATION
)
async def verify(
    request: Request,
    body: VerifyBody,
    model: str | None = None,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """For NeMo-Gym: the rollout's reward. Without a score it is tagged `judge_failed`, not zero."""
    served = resolve_model(request, model)
    try:
        item = _item(served, body)
    except InvalidRequest as error:
        return json_response({**_rollout(body), **_failed(error.code, error.detail)})
    options = options_of(request)
    reply = await score(
        request, served, [item], timeout, priority, patience=PATIENCE, options=options
    )
    (result,) = reply.results
    return json_response({**_rollout(body), **_told(result)})


@router.post("/seed_session", response_model=SeedBody)
@router.post("/compat/nemo-gym/{model}/seed_session", response_model=SeedBody)
async def seed_session(request: Request, body: SeedBody, model: str | None = None) -> Response:
    """For NeMo-Gym, which begins each rollout so. A reward model has no session to begin."""
    resolve_model(request, model)
    return json_response({})


def _rollout(body: VerifyBody) -> dict[str, Any]:
    """All that was sent, less what an earlier verification said."""
    return {name: value for name, value in body.model_dump().items() if name not in VERDICT}


def _told(result: ItemResult) -> dict[str, Any]:
    if result.error is not None:
        return _failed(result.error.code, result.error.detail)
    return {"reward": result.score, "reward_components": result.channels}


def _failed(code: str, detail: str) -> dict[str, Any]:
    reason = f"{code}: {detail}"
    return {
        "reward": None,
        "mask_sample": True,
        "failure_reason": reason,
        "_ng_failure_class": "judge_failed",
        "_ng_failure_judge_error": reason,
    }


def _item(served: ServedModel, body: VerifyBody) -> Fields:
    """The last message of the assistant is the answer, all before it the prompt."""
    asked = body.responses_create_params.input
    prompt = _turns([{"role": "user", "content": asked}] if isinstance(asked, str) else asked)
    said = _turns(body.response.output)
    while said and said[-1]["role"] != "assistant":
        said.pop()
    if not said:
        raise InvalidRequest("the rollout holds no message of the assistant")
    *earlier, last = said
    return answer(served, prompt + earlier, last["content"], body.__pydantic_extra__)


def _turns(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Messages alone: reasoning, tool calls and what they gave have no role, and are left out."""
    return [
        {"role": str(entry["role"]), "content": _text(entry.get("content"))}
        for entry in entries
        if "role" in entry
    ]


def _text(content: JsonValue) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("a message holds something else than text")
    return "".join(str(text) for text in texts)
