"""The routes of run health: what is known of a run, and what its trainer tells."""

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from assay.api.errors import PROBLEMS
from assay.api.guard import JsonRoute, json_response
from assay.errors import RunNotFound
from assay.runs import RunMonitor
from assay_monitors.gold import GoldItem, measure
from assay_monitors.history import RunHistory
from assay_monitors.reports import (
    GoldMeasure,
    KeptRun,
    RunHealth,
    RunReport,
    StreamSeries,
    gold_measure,
    kept_runs,
    run_health,
    run_report,
    run_series,
)

T = TypeVar("T")

MOST_ANSWERS = 64
ABSENT: dict[int | str, dict[str, Any]] = {404: {**PROBLEMS[404], "description": "Run not found"}}

router = APIRouter(route_class=JsonRoute, responses={**PROBLEMS, **ABSENT}, tags=["runs"])

RunName = Annotated[str, Path(min_length=1, max_length=256)]
Step = Annotated[int, Field(ge=0, le=2**53)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Measured = Annotated[FiniteFloat, Field(ge=-1e12, le=1e12)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Telemetry(_Body):
    """What only the trainer knows of a step, by name; of values told twice the mean counts."""

    step: Step
    values: Annotated[dict[Name, FiniteFloat], Field(min_length=1, max_length=64)]


class GoldAnswer(_Body):
    """One response of the current policy, scored by the reward that trains (`proxy`) and by gold.
    `prompt` is the prompt's name; it is not kept.
    """

    prompt: Annotated[str, Field(min_length=1, max_length=1024)]
    proxy: Measured
    gold: Measured


class Gold(_Body):
    """Responses of the policy at a step, two a prompt or more, or the gradient's norm, or both."""

    step: Step
    source: Name
    items: Annotated[list[GoldAnswer], Field(max_length=10_000)] = Field(default_factory=list)
    gradient_norm: Annotated[FiniteFloat, Field(ge=0, le=1e12)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Gold":
        if not self.items and self.gradient_norm is None:
            raise ValueError("neither items nor gradient_norm: there is nothing to keep")
        answers = Counter([one.prompt for one in self.items])
        if max(answers.values(), default=0) > MOST_ANSWERS:
            raise ValueError(f"a prompt has more than {MOST_ANSWERS} items")
        return self


class Runs(BaseModel):
    """The runs that are kept, the one that was seen last first."""

    runs: list[KeptRun]


class Told(BaseModel):
    """What was taken in, to be kept within a second."""

    run: str
    step: int
    values: int


class Series(BaseModel):
    """A run's streams, step by step."""

    run: str
    streams: list[StreamSeries]


@router.get("/v1/runs", response_model=Runs)
async def list_runs(request: Request) -> Response:
    """The training runs that are kept, the one that was seen last first."""
    return json_response({"runs": await _monitor(request).read(kept_runs)})


@router.get("/v1/runs/{run:path}/health", response_model=RunHealth)
async def show_health(request: Request, run: RunName) -> Response:
    """A run's health: each rule's state in each of its streams, its channels, and its gold."""
    health = await known(request, run, lambda history: run_health(history, run))
    _monitor(request).show(health)
    return json_response(health)


@router.get("/v1/runs/{run:path}/series", response_model=Series)
async def show_series(
    request: Request,
    run: RunName,
    model: str | None = None,
    split: str | None = None,
    since: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> Response:
    """What was seen of a run step by step, of one model or split, or from a step on."""
    streams = await known(
        request, run, lambda history: run_series(history, run, model, split, since)
    )
    return json_response({"run": run, "streams": streams})


@router.get("/v1/runs/{run:path}", response_model=RunReport)
async def show_run(request: Request, run: RunName) -> Response:
    """A run: when it was seen, what it was scored with, and its gold sources."""
    return json_response(await known(request, run, lambda history: run_report(history, run)))


@router.post("/v1/runs/{run:path}/telemetry", response_model=Told)
async def tell(request: Request, run: RunName, telemetry: Telemetry) -> Response:
    """Take in what the trainer tells of a step: entropy, divergence, lengths, an outcome."""
    _monitor(request).tell(run, telemetry.step, telemetry.values)
    return json_response(Told(run=run, step=telemetry.step, values=len(telemetry.values)))


@router.post("/v1/runs/{run:path}/gold", response_model=GoldMeasure)
async def judge(request: Request, run: RunName, gold: Gold) -> Response:
    """Measure how well the reward agrees with gold at a step; a second time replaces the first."""
    monitor = _monitor(request)
    items = [GoldItem(one.prompt, one.proxy, one.gold) for one in gold.items]
    point = await monitor.work(lambda: measure(gold.step, items, gold.gradient_norm))
    monitor.judge(run, gold.source, point)
    return json_response(gold_measure(point))


async def known(request: Request, run: str, look: Callable[[RunHistory], T | None]) -> T:
    """What a look at the history finds.

    Raises:
        RunNotFound: nothing.
    """
    found = await _monitor(request).read(look)
    if found is None:
        raise not_kept(run)
    return found


def not_kept(run: str) -> RunNotFound:
    """The error of a run that nothing is known of."""
    return RunNotFound(f"no run {run!r} is kept", hint="GET /v1/runs lists those that are")


def _monitor(request: Request) -> RunMonitor:
    monitor = request.app.state.runs
    assert isinstance(monitor, RunMonitor)
    return monitor
