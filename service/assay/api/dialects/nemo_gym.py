"""NeMo-Gym's resources server: verification of rollouts, with a failure class for no score."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from assay.api.dialects._rollout_metrics import MetricsError, aggregate
from assay.api.dialects._rollouts import rollout_item
from assay.api.dialects._service import resolve_model, score, select_model
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.json_values import Json, JsonObject, JsonObjects
from assay.api.parameters import ForeignParameters
from assay.errors import InvalidRequest
from assay.types import ItemResult
from assay_models.base import NullIsAbsent

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

# Entries of one side of a rollout; several may make one message.
MAX_ENTRIES = 4096
# The client waits indefinitely, and a status other than 200 ends its rollout.
CLIENT_TIMEOUT_SECONDS = 300.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class _Open(NullIsAbsent):
    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Json]

    def fields(self) -> dict[str, Any]:
        """Return the fields as they were sent, which may be large and are not copied."""
        values = {name: value for name, value in self if name in self.model_fields_set}
        return {
            name: value.fields() if isinstance(value, _Open) else value
            for name, value in values.items()
        }


class CreateParams(_Open):
    """The policy's input: `instructions`, and text or entries of the Responses API.

    `tools`, `prompt` and `previous_response_id` are refused for a model that reads conversations:
    the policy saw what they stand for, and a message cannot hold it.
    """

    input: str | Annotated[list[JsonObject], Field(max_length=MAX_ENTRIES)]
    instructions: str | None = None


class PolicyResponse(_Open):
    """The policy's output; only its messages are scored."""

    output: Annotated[list[Json], Field(max_length=MAX_ENTRIES)]


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


class AggregateBody(_Open):
    """Replies of `/verify`, without their texts. `_ng_task_index` and `_ng_rollout_index` are 0
    where they are absent; no two may have both alike.
    """

    verify_responses: JsonObjects


class AggregateMetrics(BaseModel):
    """Statistics under names such as `mean/reward`: of each task, of all, and all the means.

    `std` has the denominator n - 1. A number that a rollout lacks is left out of its statistics.
    """

    group_level_metrics: list[dict[str, JsonValue]]
    agent_metrics: dict[str, float]
    key_metrics: dict[str, float]


@router.post("/verify", response_model=VerifyReply)
@router.post("/ng-rollout/{rollout}/verify", response_model=VerifyReply)
@router.post("/compat/nemo-gym/{model}/verify", response_model=VerifyReply)
@router.post("/compat/nemo-gym/{model}/ng-rollout/{rollout}/verify", response_model=VerifyReply)
async def verify(request: Request, body: VerifyBody, parameters: ForeignParameters) -> Response:
    """Verify a rollout for NeMo-Gym. Without a score, it is marked `judge_failed`, not zero.

    NeMo-Gym puts a rollout's id before the path while it observes runs; no score depends on it.
    """
    served = select_model(request, parameters)
    try:
        item = rollout_item(
            served,
            body.responses_create_params.fields(),
            output=body.response.output,
            data=body.__pydantic_extra__,
        )
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
@router.post("/ng-rollout/{rollout}/seed_session", response_model=SeedBody)
@router.post("/compat/nemo-gym/{model}/seed_session", response_model=SeedBody)
@router.post("/compat/nemo-gym/{model}/ng-rollout/{rollout}/seed_session", response_model=SeedBody)
async def seed_session(request: Request, body: SeedBody, model: str | None = None) -> Response:
    """Return an empty object to NeMo-Gym, which seeds a session per rollout; nothing is stored."""
    _check_model(request, model)
    return json_response({})


@router.post("/aggregate_metrics", response_model=AggregateMetrics)
@router.post("/compat/nemo-gym/{model}/aggregate_metrics", response_model=AggregateMetrics)
async def aggregate_metrics(
    request: Request, body: AggregateBody, model: str | None = None
) -> Response:
    """Summarise verified rollouts for NeMo-Gym: statistics of each number, by task and in all."""
    _check_model(request, model)
    try:
        metrics = await asyncio.to_thread(aggregate, body.verify_responses)
    except MetricsError as error:
        raise InvalidRequest(f"verify_responses: {error}") from None
    return json_response(metrics)


@router.get("/reverify_mode", response_model=Literal["stateless"])
@router.get("/compat/nemo-gym/{model}/reverify_mode", response_model=Literal["stateless"])
async def reverify_mode(request: Request, model: str | None = None) -> str:
    """Return `stateless` to NeMo-Gym: a rollout has the same reward whenever it is verified."""
    _check_model(request, model)
    return "stateless"


def _check_model(request: Request, model: str | None) -> None:
    """Refuse a model that is not served; without one the reply is the same for all."""
    if model is not None:
        resolve_model(request, model)


def _rollout(body: VerifyBody) -> dict[str, Any]:
    """Return the fields of the request, without those of an earlier verification."""
    return {name: value for name, value in body.fields().items() if name not in REPLY_FIELDS}


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
