"""The routes of run health: reports, charts, events, telemetry, gold, names and notes of a run."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    model_validator,
)
from starlette.types import Receive, Scope, Send

from assay.api.components import components_of
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.schemas import RunName
from assay.errors import InvalidRequest, RunExists, RunNotFound
from assay.runs.monitor import RunMonitor
from assay.runs.names import MAX_NAME_LENGTH, check_run_name
from assay.runs.subscribers import Subscriber, Subscribers
from assay_models.base import NullIsAbsent
from assay_models.bounded import MAX_FIELDS
from assay_monitors.charts import DEFAULT_COLUMNS, RunChart, run_chart
from assay_monitors.gold import GoldItem, measure
from assay_monitors.history import RunHistory
from assay_monitors.reports import (
    GoldMeasure,
    KeptRun,
    RunHealth,
    RunReport,
    gold_measure,
    kept_runs,
    run_health,
    run_report,
)
from assay_monitors.step_reports import StreamSeries, run_series

T = TypeVar("T")

MAX_ITEMS_PER_PROMPT = 64
MAX_COLUMNS = 500
MAX_NOTE_LENGTH = 2_000
EVENT_STREAM = "text/event-stream"
# Proxies must neither store the events nor hold them back.
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}}
}
ABSENT: dict[int | str, dict[str, Any]] = {404: {**PROBLEMS[404], "description": "Run not found"}}
TAKEN: dict[int | str, dict[str, Any]] = {
    409: {**PROBLEMS[404], "description": "Another run has the name"}
}

router = APIRouter(route_class=JsonRoute, responses={**PROBLEMS, **ABSENT}, tags=["runs"])

RunPath = Annotated[str, Path(min_length=1, max_length=MAX_NAME_LENGTH)]
Step = Annotated[int, Field(ge=0, le=2**53)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Measured = Annotated[FiniteFloat, Field(ge=-1e12, le=1e12)]


class _Body(NullIsAbsent):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _drop_nulls(values: object) -> object:
    if not isinstance(values, dict):
        return values
    if len(values) > MAX_FIELDS:
        raise ValueError(f"{len(values)} values, where a step has at most {MAX_FIELDS}")
    return {name: value for name, value in values.items() if value is not None}


class Telemetry(_Body):
    """Values of a step that the trainer reports, by name. Values sent twice are averaged.

    A value that is null was not measured at this step.
    """

    step: Step
    values: Annotated[
        dict[Name, FiniteFloat], BeforeValidator(_drop_nulls), Field(min_length=1, max_length=64)
    ]


class GoldItemBody(_Body):
    """One response of the current policy, scored by the training reward (`proxy`) and by gold.

    `prompt` is the prompt's name; it is not stored.
    """

    prompt: Annotated[str, Field(min_length=1, max_length=1024)]
    proxy: Measured
    gold: Measured


class Gold(_Body):
    """Responses of the policy at a step (at least two per prompt), the gradient norm, or both."""

    step: Step
    source: Name
    items: Annotated[list[GoldItemBody], Field(max_length=10_000)] = Field(default_factory=list)
    gradient_norm: Annotated[FiniteFloat, Field(ge=0, le=1e12)] | None = None

    @model_validator(mode="after")
    def _check_items(self) -> "Gold":
        if not self.items and self.gradient_norm is None:
            raise ValueError("neither items nor gradient_norm: there is nothing to keep")
        counts = Counter([item.prompt for item in self.items])
        if max(counts.values(), default=0) > MAX_ITEMS_PER_PROMPT:
            raise ValueError(f"a prompt has more than {MAX_ITEMS_PER_PROMPT} items")
        return self


class RunEdit(_Body):
    """A run's new name `id`, a `note` about it (an empty one removes it), or both."""

    id: RunName | None = None
    note: Annotated[str, Field(max_length=MAX_NOTE_LENGTH)] | None = None

    @model_validator(mode="after")
    def _check_fields(self) -> "RunEdit":
        if self.id is None and self.note is None:
            raise ValueError("neither id nor note: there is nothing to change")
        return self


class RunList(BaseModel):
    """The recorded runs, the most recently seen first."""

    runs: list[KeptRun]


class TelemetryReceipt(BaseModel):
    """The values that were accepted; they are stored within a second."""

    run: str
    step: int
    values: int


class RunSeriesReply(BaseModel):
    """The step-by-step values of each of a run's streams."""

    run: str
    streams: list[StreamSeries]


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """The time a run was last seen (seconds since the epoch), and its latest step with a score or
    a record.
    """

    run: str
    last_seen: float
    step: int | None


@router.get("/v1/runs", response_model=RunList)
async def list_runs(request: Request) -> Response:
    """List the recorded training runs, the most recently seen first."""
    return json_response({"runs": await _monitor(request).read(kept_runs)})


@router.get("/v1/runs/{run:path}/health", response_model=RunHealth)
async def show_health(request: Request, run: RunPath) -> Response:
    """Return a run's health: each rule's state in each stream, its channels, and its gold."""
    health = await _read(request, run, lambda history: run_health(history, run))
    _monitor(request).show(health)
    return json_response(health)


@router.get("/v1/runs/{run:path}/series", response_model=RunSeriesReply)
async def show_series(
    request: Request,
    run: RunPath,
    *,
    model: str | None = None,
    split: str | None = None,
    since: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> Response:
    """Return a run's values step by step, optionally of one model or split or from a step on."""
    streams = await _read(
        request,
        run,
        lambda history: run_series(history, run, model=model, split=split, since=since),
    )
    return json_response({"run": run, "streams": streams})


@router.get("/v1/runs/{run:path}/chart", response_model=RunChart)
async def show_chart(
    request: Request,
    run: RunPath,
    *,
    model: str | None = None,
    split: str | None = None,
    columns: Annotated[int, Query(ge=1, le=MAX_COLUMNS)] = DEFAULT_COLUMNS,
) -> Response:
    """Return a run's chart: steps pooled into columns, score quantiles, and rule firings."""
    chart = await _read(
        request,
        run,
        lambda history: run_chart(history, run, model=model, split=split, max_columns=columns),
    )
    return json_response(chart)


@router.get("/v1/runs/{run:path}/events", response_model=RunUpdate, responses=STREAMED)
async def stream_events(request: Request, run: RunPath) -> Response:
    """Return a run's latest update; with `Accept: text/event-stream`, stream later ones too."""
    subscribers = components_of(request.app).subscribers
    update = await subscribers.latest(run)
    if update is None:
        raise _run_not_found(run)
    if EVENT_STREAM not in request.headers.get("accept", ""):
        return json_response(RunUpdate(run, *update))
    return SubscriberStream(subscribers, subscribers.join(run, update))


@router.get("/v1/runs/{run:path}", response_model=RunReport)
async def show_run(request: Request, run: RunPath) -> Response:
    """Return a run's summary: when it was seen, its models and splits, and its gold sources."""
    return json_response(await _read(request, run, lambda history: run_report(history, run)))


@router.delete("/v1/runs/{run:path}", status_code=204)
async def delete_run(request: Request, run: RunPath) -> Response:
    """Delete a run and its records. A request that names it later begins it anew."""
    if not await _monitor(request).delete(run):
        raise _run_not_found(run)
    return Response(status_code=204)


@router.patch("/v1/runs/{run:path}", response_model=RunReport, responses=TAKEN)
async def edit_run(request: Request, run: RunPath, edit: RunEdit) -> Response:
    """Give a run another name, a note, or both. Its alerts go on under the new name."""
    outcome = await _monitor(request).edit(run, name=edit.id, note=edit.note)
    if outcome == "name_taken":
        raise RunExists(f"a run {edit.id!r} is kept already", hint="delete or rename it first")
    if outcome == "not_found":
        raise _run_not_found(run)
    name = run if edit.id is None else edit.id
    return json_response(await _read(request, name, lambda history: run_report(history, name)))


@router.post("/v1/runs/{run:path}/telemetry", response_model=TelemetryReceipt)
async def record_telemetry(request: Request, run: RunPath, telemetry: Telemetry) -> Response:
    """Record a trainer's own values of a step, such as entropy, divergence, lengths, outcome."""
    _check_name(run)
    _monitor(request).record_telemetry(run, telemetry.step, telemetry.values)
    return json_response(
        TelemetryReceipt(run=run, step=telemetry.step, values=len(telemetry.values))
    )


@router.post("/v1/runs/{run:path}/gold", response_model=GoldMeasure)
async def record_gold(request: Request, run: RunPath, gold: Gold) -> Response:
    """Measure and record the reward's agreement with gold at a step, replacing an earlier one."""
    _check_name(run)
    monitor = _monitor(request)
    items = [GoldItem(item.prompt, item.proxy, item.gold) for item in gold.items]
    point = await monitor.compute(lambda: measure(gold.step, items, gold.gradient_norm))
    monitor.record_gold(run, gold.source, point)
    return json_response(gold_measure(point))


async def _read(request: Request, run: str, query: Callable[[RunHistory], T | None]) -> T:
    """Return the result of a query of the run's history.

    Raises:
        RunNotFound: the run is not recorded.
    """
    result = await _monitor(request).read(query)
    if result is None:
        raise _run_not_found(run)
    return result


def _check_name(run: str) -> None:
    """Raise InvalidRequest if no run can have the name."""
    try:
        check_run_name(run)
    except ValueError as error:
        problem = {"field": "run", "problem": str(error)}
        raise InvalidRequest("the run in the path", problems=[problem]) from error


def _run_not_found(run: str) -> RunNotFound:
    return RunNotFound(f"no run {run!r} is kept", hint="GET /v1/runs lists those that are")


class SubscriberStream(EventSourceResponse):
    """The event stream of a subscriber, who leaves when it ends, even if it never began."""

    def __init__(self, subscribers: Subscribers, subscriber: Subscriber) -> None:
        super().__init__(_events(subscriber), headers=UNBUFFERED)
        self._subscribers = subscribers
        self._subscriber = subscriber

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; the subscriber leaves afterwards."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._subscribers.leave(self._subscriber)


async def _events(subscriber: Subscriber) -> AsyncIterator[bytes]:
    """Yield `seen` with each update, comments as heartbeats, and `end` when the run ends."""
    async for update in subscriber.updates():
        if update is None:
            yield format_sse_event(comment="still here")
        else:
            content = orjson.dumps(RunUpdate(subscriber.run, *update)).decode()
            yield format_sse_event(event="seen", data_str=content)
    yield format_sse_event(event="end", data_str="{}")


def _monitor(request: Request) -> RunMonitor:
    return components_of(request.app).runs
