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
    StrictBool,
    model_validator,
)
from starlette.types import Receive, Scope, Send

from assay.api.components import components_of
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.middleware import caller_of
from assay.api.schemas import BodyStep, RunName
from assay.errors import InvalidRequest, RunExists, RunNotFound, RunQuotaExceeded
from assay.runs.monitor import RunMonitor
from assay.runs.names import MAX_NAME_LENGTH, check_run_name
from assay.runs.owners import foreign_run, writer_of
from assay.runs.subscribers import Subscriber, Subscribers
from assay_models.base import NullIsAbsent
from assay_models.bounded import MAX_FIELDS
from assay_monitors.admission import Writer
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
from assay_monitors.step_reports import RunSeries, run_series
from assay_monitors.store import Edit

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
FOREIGN: dict[int | str, dict[str, Any]] = {
    403: {**PROBLEMS[403], "description": "The run of another key"}
}
NO_PLACE: dict[int | str, dict[str, Any]] = {
    409: {**PROBLEMS[404], "description": "No place for another run or gold source"}
}
TAKEN: dict[int | str, dict[str, Any]] = {
    409: {**PROBLEMS[404], "description": "Another run has the name, or too many are pinned"}
}

router = APIRouter(route_class=JsonRoute, responses={**PROBLEMS, **ABSENT}, tags=["runs"])

RunPath = Annotated[str, Path(min_length=1, max_length=MAX_NAME_LENGTH)]
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

    step: BodyStep
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

    step: BodyStep
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
    """A run's new name `id`, a `note` about it (an empty one removes it), whether it is `pinned`.

    A run that is pinned is never forgotten for a newer one.
    """

    id: RunName | None = None
    note: Annotated[str, Field(max_length=MAX_NOTE_LENGTH)] | None = None
    pinned: StrictBool | None = None

    @model_validator(mode="after")
    def _check_fields(self) -> "RunEdit":
        if self.id is None and self.note is None and self.pinned is None:
            raise ValueError("neither id nor note nor pinned: there is nothing to change")
        return self


class RunList(BaseModel):
    """The recorded runs, the most recently seen first."""

    runs: list[KeptRun]


class TelemetryReceipt(BaseModel):
    """The values that were accepted; they are stored within a second."""

    run: str
    step: int
    values: int


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
async def show_health(
    request: Request,
    run: RunPath,
    *,
    model: str | None = None,
    split: str | None = None,
    source: str | None = None,
) -> Response:
    """Return a run's health: each rule's state in each stream, its channels, and its gold.

    Optionally it is that of one model, split, or gold source.
    """
    health = await _report(
        request,
        run,
        lambda history: run_health(history, run, model=model, split=split, source=source),
    )
    if model is split is source is None:
        _monitor(request).show(health)
    return json_response(health)


@router.get("/v1/runs/{run:path}/series", response_model=RunSeries)
async def show_series(
    request: Request,
    run: RunPath,
    *,
    model: str | None = None,
    split: str | None = None,
    since: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> Response:
    """Return a run's values step by step, optionally of one model or split or from a step on."""
    series = await _report(
        request,
        run,
        lambda history: run_series(history, run, model=model, split=split, since=since),
    )
    return json_response(series)


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
    chart = await _report(
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
    owner = caller_of(request.scope).name
    return SubscriberStream(subscribers, subscribers.join(run, update, owner))


@router.get("/v1/runs/{run:path}", response_model=RunReport)
async def show_run(request: Request, run: RunPath) -> Response:
    """Return a run's summary: when it was seen, its models and splits, and its gold sources."""
    return json_response(await _show(request, run))


@router.delete("/v1/runs/{run:path}", status_code=204, responses=FOREIGN)
async def delete_run(request: Request, run: RunPath) -> Response:
    """Delete a run and its records. A request that names it later begins it anew."""
    _check_outcome(await _monitor(request).delete(run, _writer(request)), run)
    return Response(status_code=204)


@router.patch("/v1/runs/{run:path}", response_model=RunReport, responses={**FOREIGN, **TAKEN})
async def edit_run(request: Request, run: RunPath, edit: RunEdit) -> Response:
    """Give a run another name or a note, or pin it. Its alerts go on under the new name."""
    outcome = await _monitor(request).edit(
        run, name=edit.id, note=edit.note, pinned=edit.pinned, writer=_writer(request)
    )
    if outcome == "name_taken":
        raise RunExists(f"a run {edit.id!r} is kept already", hint="delete or rename it first")
    if outcome == "too_many_pins":
        raise RunQuotaExceeded("too many runs are pinned", hint="unpin one of them first")
    _check_outcome(outcome, run)
    return json_response(await _show(request, run if edit.id is None else edit.id))


@router.post(
    "/v1/runs/{run:path}/telemetry",
    response_model=TelemetryReceipt,
    responses={**FOREIGN, **NO_PLACE},
)
async def record_telemetry(request: Request, run: RunPath, telemetry: Telemetry) -> Response:
    """Record a trainer's own values of a step, such as entropy, divergence, lengths, outcome."""
    _check_name(run)
    monitor, writer = _monitor(request), _writer(request)
    await monitor.check_writer(run, writer)
    monitor.record_telemetry(run, telemetry.step, telemetry.values, writer)
    return json_response(
        TelemetryReceipt(run=run, step=telemetry.step, values=len(telemetry.values))
    )


@router.post(
    "/v1/runs/{run:path}/gold", response_model=GoldMeasure, responses={**FOREIGN, **NO_PLACE}
)
async def record_gold(request: Request, run: RunPath, gold: Gold) -> Response:
    """Measure and record the reward's agreement with gold at a step, replacing an earlier one."""
    _check_name(run)
    monitor, writer = _monitor(request), _writer(request)
    await monitor.check_writer(run, writer, gold.source)
    items = [GoldItem(item.prompt, item.proxy, item.gold) for item in gold.items]
    point = await monitor.report(
        lambda _: measure(gold.step, items, gold.gradient_norm), writer.name
    )
    monitor.record_gold(run, gold.source, point, writer)
    return json_response(gold_measure(point))


async def _show(request: Request, run: str) -> RunReport:
    report = await _monitor(request).read(lambda history: run_report(history, run))
    return _known(report, run)


async def _report(request: Request, run: str, query: Callable[[RunHistory], T | None]) -> T:
    """Return the result of a query that may read the whole run.

    Raises:
        RunNotFound: the run is not recorded.
    """
    owner = caller_of(request.scope).name
    return _known(await _monitor(request).report(query, owner), run)


def _known(result: T | None, run: str) -> T:
    if result is None:
        raise _run_not_found(run)
    return result


def _check_outcome(outcome: Edit, run: str) -> None:
    """Raise the error of an edit or a deletion that was not done."""
    if outcome == "forbidden":
        raise foreign_run(run)
    if outcome == "not_found":
        raise _run_not_found(run)


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


def _writer(request: Request) -> Writer:
    return writer_of(caller_of(request.scope))
