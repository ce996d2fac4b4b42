"""ROLL's reward system: a task is submitted, and its result polled until it is available."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, JsonValue

from assay.api.components import components_of
from assay.api.dialects._items import Fields, response_item
from assay.api.dialects._service import find_failure, resolve_model, score, select_model
from assay.api.errors import PROBLEMS
from assay.api.jobs import Jobs
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.json_values import Json
from assay.api.middleware import caller_of
from assay.api.parameters import MAX_TIMEOUT_MS, ForeignParameters, Parameters
from assay.api.schemas import Accepted, Body
from assay.errors import AssayError, JobNotFound
from assay.served_model import ServedModel
from assay_models.items import strings

SCORED, RUNNING, FAILED = 0, 1, 2
# The client polls every two seconds and waits 20 s for a reply; a held poll saves repeated ones.
MAX_POLL_SECONDS = 10.0

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["trainers"])


class RollTask(Body):
    """One response to score. `timeout` is in seconds.

    `reward_info` adds its context (`evidence`, `tests`, `language`, …) to the item, as far as the
    model's family has these fields. The other fields identify the task and do not affect the score.
    """

    prompt: str
    response: str
    rollout_id: Accepted
    data_id: Accepted = None
    reward_info: Json = None
    reward_manager: Accepted = None
    timeout: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_MS / 1e3)] = 300.0
    priority: Accepted = None
    project_id: Accepted = None
    experiment_id: Accepted = None
    global_step: Accepted = None


class RollSubmitReply(BaseModel):
    """The id under which to poll for the result."""

    errcode: Literal[0]
    errmsg: str
    reward_request_id: str


class RollResultBody(Body):
    """The id of the result that is polled for."""

    reward_request_id: str


class RollResult(BaseModel):
    """The result of a task. `errcode` 0: scored, 1: running, 2: no score (reason in `errmsg`)."""

    errcode: Literal[0, 1, 2]
    errmsg: str
    reward_score: float | None = None
    dimention_reward_score: dict[str, dict[str, JsonValue]] | None = None
    start_time: str | None = None
    end_time: str | None = None


@router.post("/compat/roll/{model}/submit", response_model=RollSubmitReply)
async def roll_submit(request: Request, body: RollTask, parameters: ForeignParameters) -> Response:
    """Accept a task from ROLL, to be scored asynchronously."""
    served = select_model(request, parameters)
    item = response_item(served, body.prompt, body.response, body.reward_info)
    parameters.run_step()  # a run that is named wrongly fails the submission, not the task
    caller = caller_of(request.scope)
    # The request itself would hold its body for as long as the task runs.
    bare = Request({"type": "http", "app": request.app, "caller": caller})
    work = _score_task(bare, served, item, parameters, body.timeout)
    size = sum(map(sys.getsizeof, strings(item)))
    job_id = _jobs(request).start(work, owner=caller.name, size=size)
    return json_response({"errcode": SCORED, "errmsg": "", "reward_request_id": job_id})


@router.get("/compat/roll/{model}/result", response_model=RollResult)
async def roll_result(request: Request, model: str, body: RollResultBody) -> Response:
    """Return a task's result to ROLL: the score, `running`, or the reason for no score."""
    resolve_model(request, model)
    job = _jobs(request).find(body.reward_request_id, caller_of(request.scope).name)
    if job is None:
        raise JobNotFound(
            "there is no such task, or its result was kept long enough",
            hint="results are kept for some minutes, by the process that took the task, for the "
            "key that sent it; a task that is not polled for two minutes ends",
        )
    await asyncio.wait({job}, timeout=MAX_POLL_SECONDS)
    if not job.done():
        return json_response({"errcode": RUNNING, "errmsg": "running"})
    if job.cancelled():
        return json_response({"errcode": FAILED, "errmsg": "shutting_down: the server stopped"})
    return json_response(job.result())


async def _score_task(
    request: Request,
    served: ServedModel,
    item: Fields,
    parameters: Parameters,
    client_timeout: float,
) -> dict[str, Any]:
    began = datetime.now(UTC)
    try:
        reply = await score(
            request,
            served,
            [item],
            parameters=parameters,
            client_timeout=client_timeout,
        )
        failure: AssayError | None = find_failure(reply.results)
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
