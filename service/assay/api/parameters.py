"""The parameters of a scoring request outside its body: headers, and the query of the URL."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl

from fastapi import Depends, Header, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from assay.api.schemas import RunBody, RunName, RunSplit, RunStepNumber
from assay.errors import InvalidRequest
from assay.runs.steps import RunStep
from assay.types import Lane
from assay_models.base import Truncation

MAX_TIMEOUT_MS = 3_600_000


def _check_ascii(text: str) -> str:
    if not text.isascii():
        raise ValueError("a header carries ASCII only: use ?run= and ?split=, or the body")
    return text


class _Parameters(BaseModel):
    """Parameters of a request. An empty one counts as absent, as an unset variable leaves it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value != ""}


class ScoringHeaders(_Parameters):
    """The headers that every scoring route reads."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timeout: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)] | None = Field(
        None,
        alias="X-Assay-Timeout-Ms",
        description="Milliseconds the client waits. Items not scored by then are dropped.",
    )
    priority: Lane | None = Field(
        None,
        alias="X-Assay-Priority",
        description="The priority lane: a higher lane is computed first on a busy device. Default: "
        "`interactive` to rank candidates or documents, else `training`.",
    )
    run: Annotated[RunName, AfterValidator(_check_ascii)] | None = Field(
        None,
        alias="X-Assay-Run",
        description="The training run that the scores are recorded for. No score depends on it.",
    )
    step: RunStepNumber | None = Field(
        None, alias="X-Assay-Step", description="The step of the run."
    )
    split: Annotated[RunSplit, AfterValidator(_check_ascii)] | None = Field(
        None, alias="X-Assay-Split", description="The split of the run's data."
    )


class ScoringQuery(_Parameters):
    """The query of the URL of every scoring route."""

    run: RunName | None = Field(None, description="The same as the header `X-Assay-Run`.")
    step: RunStepNumber | None = Field(None, description="The same as `X-Assay-Step`.")
    split: RunSplit | None = Field(None, description="The same as `X-Assay-Split`.")


class ForeignQuery(ScoringQuery):
    """The query of another server's route, whose body may have no place for these options."""

    model: str | None = Field(
        None, description="The model, as `name@version` or `name`; a path that names one decides."
    )
    truncation: Truncation | None = Field(
        None, description="The side on which an over-long item is cut; `error`, the default: none."
    )


class Run(NamedTuple):
    """The run of a request, as far as one place names it."""

    id: str | None = None
    step: int | None = None
    split: str | None = None


NO_RUN = Run()


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a scoring request outside its body.

    `timeout` is in milliseconds. `path_model` and `query_model` name the model; a native route
    reads neither, and takes the model of its path as an argument of its own.
    """

    timeout: int | None = None
    lane: Lane | None = None
    run: Run = NO_RUN
    truncation: Truncation | None = None
    path_model: str | None = None
    query_model: str | None = None

    def run_step(self, body: RunBody | None = None) -> RunStep | None:
        """Return the run of the request, which headers, query and body may name in parts.

        Raises:
            InvalidRequest: two places disagree, or a step is given without a run.
        """
        run = self.run
        if run == NO_RUN:
            return None if body is None else RunStep(body.id, body.step, body.split)
        if body is not None:
            run = _agreed(run, Run(body.id, body.step, body.split), "body")
        if run.id is not None:
            return RunStep(run.id, run.step, run.split)
        raise InvalidRequest(
            "run: a step or a split is given, and no run",
            hint="name the run too, as X-Assay-Run or ?run=",
        )


NO_PARAMETERS = Parameters()
NO_QUERY = ForeignQuery()
NO_HEADERS = ScoringHeaders()
HEADERS = {
    str(field.alias).lower().encode(): str(field.alias)
    for field in ScoringHeaders.model_fields.values()
}
"""The names of the headers, by their bytes on the wire."""


async def native_parameters(
    request: Request,
    query: Annotated[ScoringQuery, Query()],
    headers: Annotated[ScoringHeaders, Header()],
) -> Parameters:
    """Return the parameters of a request to a native route."""
    _refuse_repeated(request.scope)
    return _combine(query, headers, None)


async def foreign_parameters(
    request: Request,
    query: Annotated[ForeignQuery, Query()],
    headers: Annotated[ScoringHeaders, Header()],
) -> Parameters:
    """Return the parameters of a request to a route of another server."""
    _refuse_repeated(request.scope)
    return _combine(query, headers, request.path_params.get("model"))


NativeParameters = Annotated[Parameters, Depends(native_parameters)]
ForeignParameters = Annotated[Parameters, Depends(foreign_parameters)]


def read_parameters(
    query_type: type[ScoringQuery], scope: Mapping[str, Any], headers: Mapping[bytes, bytes]
) -> Parameters:
    """Return the same parameters without FastAPI's dependency solving.

    Args:
        query_type: the class of the route's query.
        scope: the request's scope.
        headers: the request's headers by lower-case name.

    Raises:
        ValidationError: a parameter is unknown or malformed.
        InvalidRequest: header and query disagree.
    """
    _refuse_repeated(scope)
    given = {
        name: headers[key].decode("latin-1") for key, name in HEADERS.items() if key in headers
    }
    query: ScoringQuery = NO_QUERY
    text = scope["query_string"]
    if text:
        pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True)
        query = query_type.model_validate(dict(pairs))
    parsed = ScoringHeaders.model_validate(given) if given else NO_HEADERS
    return _combine(query, parsed, scope["path_params"].get("model"))


def _refuse_repeated(scope: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` if a parameter is given twice in the headers or in the query."""
    names = [HEADERS[name] for name, _ in scope["headers"] if name in HEADERS]
    query = scope["query_string"].decode("latin-1")
    names += [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    for name, count in Counter(names).items():
        if count > 1:
            raise InvalidRequest(
                f"{name}: it is given {count} times",
                hint="give it once",
                problems=[{"field": name, "problem": "it is repeated"}],
            )


def _combine(query: ScoringQuery, headers: ScoringHeaders, path_model: str | None) -> Parameters:
    run = NO_RUN
    if query is not NO_QUERY or headers is not NO_HEADERS:
        run = Run(headers.run, headers.step, headers.split)
        run = _agreed(run, Run(query.run, query.step, query.split), "query")
    foreign = query if isinstance(query, ForeignQuery) else NO_QUERY
    return Parameters(
        timeout=headers.timeout,
        lane=headers.priority,
        run=run,
        truncation=foreign.truncation,
        path_model=path_model,
        query_model=foreign.model,
    )


def _agreed(first: Run, second: Run, place: str) -> Run:
    """Return the run that both places name, each perhaps in part."""
    for name, left, right in zip(Run._fields, first, second, strict=True):
        if left is not None and right is not None and left != right:
            raise InvalidRequest(
                f"run: the {place} names another {name} than the request's header or query",
                hint="send run and step in one place: body, headers or query",
            )
    return Run(
        second.id if first.id is None else first.id,
        second.step if first.step is None else first.step,
        second.split if first.split is None else first.split,
    )
