"""NeMo-Gym's resources server: verification of rollouts, with a failure class for no score."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field, JsonValue

from assay.api.dialects._items import Fields, response_item
from assay.api.dialects._service import resolve_model, score, select_model
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.parameters import ForeignParameters
from assay.errors import InvalidRequest
from assay.served_model import ServedModel
from assay.types import ItemResult
from assay_models.base import NullIsAbsent

Entry = Mapping[str, JsonValue]
# Fields of a reply; a rollout that was verified before carries them already.
REPLY_FIELDS = frozenset(
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

# The client waits indefinitely, and a status other than 200 ends its rollout.
CLIENT_TIMEOUT_SECONDS = 300.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class _Open(NullIsAbsent):
    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, JsonValue]


class CreateParams(_Open):
    """The policy's input: text, or entries of the Responses API."""

    input: str | list[dict[str, JsonValue]]


class PolicyResponse(_Open):
    """The policy's output; only its messages are scored."""

    output: list[dict[str, JsonValue]]


class VerifyBody(_Open):
    """One rollout.

    Other fields are returned unchanged; those that are context (`evidence`, `tests`, …) and that
    the model's family has are added to the item.
    """

    responses_create_params: CreateParams
    response: PolicyResponse


class VerifyReply(VerifyBody):
    """The rollout with its reward, or with null and the class of the failure."""

    reward: float | None
    reward_components: dict[str, float] | None = None
    mask_sample: bool = False
    failure_reason: str | None = None
    failure_class: Literal["judge_failed"] | None = Field(None, alias="_ng_failure_class")
    judge_error: str | None = Field(None, alias="_ng_failure_judge_error")


class SeedBody(_Open):
    """An empty object: no state is kept between requests."""


@router.post("/verify", response_model=VerifyReply)
@router.post("/compat/nemo-gym/{model}/verify", response_model=VerifyReply)
async def verify(request: Request, body: VerifyBody, parameters: ForeignParameters) -> Response:
    """Verify a rollout for NeMo-Gym. Without a score, it is marked `judge_failed`, not zero."""
    served = select_model(request, parameters)
    try:
        item = _item(served, body)
    except InvalidRequest as error:
        return json_response({**_rollout(body), **_failed(error.code, error.detail)})
    reply = await score(
        request,
        served,
        [item],
        parameters=parameters,
        client_timeout=CLIENT_TIMEOUT_SECONDS,
    )
    (result,) = reply.results
    return json_response({**_rollout(body), **_reward(result)})


@router.post("/seed_session", response_model=SeedBody)
@router.post("/compat/nemo-gym/{model}/seed_session", response_model=SeedBody)
async def seed_session(request: Request, body: SeedBody, model: str | None = None) -> Response:
    """Return an empty object to NeMo-Gym, which seeds a session per rollout; nothing is stored."""
    resolve_model(request, model)
    return json_response({})


def _rollout(body: VerifyBody) -> dict[str, Any]:
    """Return the fields of the request, without those of an earlier verification."""
    return {name: value for name, value in body.model_dump().items() if name not in REPLY_FIELDS}


def _reward(result: ItemResult) -> dict[str, Any]:
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
    """Return the item: the assistant's last message, and everything before it as the prompt."""
    given = body.responses_create_params.input
    prompt = _messages([{"role": "user", "content": given}] if isinstance(given, str) else given)
    output = _messages(body.response.output)
    while output and output[-1]["role"] != "assistant":
        output.pop()
    if not output:
        raise InvalidRequest("the rollout holds no message of the assistant")
    *earlier, last = output
    return response_item(served, prompt + earlier, last["content"], body.__pydantic_extra__)


def _messages(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Return the messages; reasoning, tool calls and their results have no role and are omitted."""
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
