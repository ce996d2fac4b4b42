"""ROLL's reward system: a task is submitted, and its result asked for until it is there."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from assay.api.components import components_of
from assay.api.dialects._items import Fields, answer
from assay.api.dialects._jobs import Jobs
from assay.api.dialects._service import TRUNCATION, failure_of, options_of, resolve_model, score
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.json import json_response
from assay.api.schemas import MAX_TIMEOUT_MS, Priority, Timeout
from assay.errors import AssayError, JobNotFound
from assay.served_model import ServedModel
from assay.types import Lane
from assay_models.base import Options

SCORED, RUNNING, FAILED = 0, 1, 2
# The client asks every two seconds and waits 20 s for a reply: so long it is spared to ask again.
LINGER = 10.0

Name = str | int | None

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class RollTask(BaseModel):
    """One answer. `reward_info` gives the item its `evidence`, `tests` or `language`, as far as the
    model's family knows them; `timeout` is in seconds. All else names the task, and changes no
    number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    response: str
    rollout_id: Name
    data_id: Name = None
    reward_info: JsonValue = None
    reward_manager: JsonValue = None
    timeout: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_MS / 1e3)] = 300.0
    priority: int = 1
    project_id: Name = None
    experiment_id: Name = None
    global_step: Name = None


class RollTicket(BaseModel):
    """What to ask for the result by."""

    errcode: Literal[0]
    errmsg: str
    reward_request_id: str


class RollQuestion(BaseModel):
    """Which result is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reward_request_id: str


class RollResult(BaseModel):
    """`errcode` 0: scored, 1: running, 2: there is no score, and `errmsg` says why."""

    errcode: Literal[0, 1, 2]
    errmsg: str
    reward_score: float | None = None
    dimention_reward_score: dict[str, dict[str, JsonValue]] | None = None
    start_time: str | None = None
    end_time: str | None = None


@router.post("/compat/roll/{model}/submit", response_model=RollTicket, openapi_extra=TRUNCATION)
async def roll_submit(
    request: Request,
    model: str,
    body: RollTask,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """For ROLL: take an answer to be scored."""
    served = resolve_model(request, model)
    item = answer(served, body.prompt, body.response, body.reward_info)
    options = options_of(request)
    work = _work(request, served, item, body.timeout, timeout, priority, options)
    return json_response(
        {"errcode": SCORED, "errmsg": "", "reward_request_id": _jobs(request).start(work)}
    )


@router.get("/compat/roll/{model}/result", response_model=RollResult)
async def roll_result(request: Request, model: str, body: RollQuestion) -> Response:
    """For ROLL: the score, or that it is not there yet, or why it never will be."""
    resolve_model(request, model)
    job = _jobs(request).find(body.reward_request_id)
    if job is None:
        raise JobNotFound(
            "there is no such task, or its result was kept long enough",
            hint="results are kept for some minutes, by the process that took the task",
        )
    await asyncio.wait({job}, timeout=LINGER)
    if not job.done():
        return json_response({"errcode": RUNNING, "errmsg": "running"})
    if job.cancelled():
        return json_response({"errcode": FAILED, "errmsg": "shutting_down: the server stopped"})
    return json_response(job.result())


async def _work(
    request: Request,
    served: ServedModel,
    item: Fields,
    patience: float,
    timeout: int | None,
    lane: Lane,
    options: Options,
) -> dict[str, Any]:
    began = datetime.now(UTC)
    try:
        reply = await score(
            request, served, [item], timeout, lane, patience=patience, options=options
        )
        failure: AssayError | None = failure_of(reply.results)
    except AssayError as error:
        failure = error
    if failure is not None:
        return {"errcode": FAILED, "errmsg": f"{failure.code}: {failure.detail}"}
    (result,) = reply.results
    return {
        "errcode": SCORED,
        "errmsg": "",
        "reward_score": result.score,
        "dimention_reward_score": {
            name: {"score": value, "debug_info": {}} for name, value in result.channels.items()
        },
        "start_time": began.isoformat(),
        "end_time": datetime.now(UTC).isoformat(),
    }


def _jobs(request: Request) -> Jobs[dict[str, Any]]:
    return components_of(request.app).jobs
