"""The v2 inference protocol of KServe and Triton with JSON tensors, as NeMo-Aligner uses it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from assay.api.dialects._items import Fields, text_item
from assay.api.dialects._service import resolve_model, score, scores_of, select_model
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.parameters import ForeignParameters, Parameters
from assay.api.schemas import Accepted, Body, ItemList
from assay.errors import InvalidRequest, ModelNotReady
from assay.served_model import Ready, ServedModel
from assay_models.base import NullIsAbsent
from assay_models.items import read_fields

# Texts of a tensor with this name are scored unchanged; any other name is a field of the item.
SENTENCES = "sentences"
REWARDS = "rewards"
MAX_TENSORS = 64

# Triton's clients send no content type. Web pages have to: see `StrictRequest`.
router = APIRouter(
    route_class=JsonRoute, responses=PROBLEMS, tags=["engines"], strict_content_type=False
)

Text = str
Row = Annotated[list[Text], Field(min_length=1, max_length=1)]
Version = Annotated[int, Path(ge=1, le=999_999)]


class InferInput(Body):
    """A column with one text per item: shape [n] or [n, 1]."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=2)]
    datatype: Literal["BYTES"]
    data: Annotated[list[Text] | list[Row], ItemList()]
    parameters: Accepted = None

    @field_validator("data")
    @classmethod
    def _check_shape(cls, data: list[Text] | list[Row], info: ValidationInfo) -> object:
        n, shape = len(data), info.data.get("shape")
        if shape not in ([n], [n, 1], None):
            raise PydanticCustomError(
                "shape",
                "{n} texts do not have the shape {shape}: for n texts it is [n] or [n, 1]",
                {"n": n, "shape": str(shape)},
            )
        return data

    @property
    def texts(self) -> list[str]:
        """The text of each item."""
        return [row if isinstance(row, str) else row[0] for row in self.data]


class RequestedOutput(Body):
    """The requested output; the only one is `rewards`."""

    name: Literal["rewards"]
    parameters: Accepted = None


class InferParameters(NullIsAbsent):
    """Parameters of a request: `timeout` is in microseconds; others do not affect the scores."""

    model_config = ConfigDict(frozen=True)

    timeout: Annotated[int, Field(ge=0)] | None = None


class InferBody(Body):
    """Columns of equal length: `sentences`, or fields of the model's items."""

    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=MAX_TENSORS)]
    id: str | None = None
    outputs: Annotated[list[RequestedOutput], Field(max_length=MAX_TENSORS)] | None = None
    parameters: InferParameters = InferParameters()

    @model_validator(mode="after")
    def _check_columns(self) -> "InferBody":
        if len({len(column.data) for column in self.inputs}) > 1:
            raise ValueError("the inputs hold different numbers of texts")
        if len({column.name for column in self.inputs}) < len(self.inputs):
            raise ValueError("two inputs have the same name")
        return self


class InferOutput(BaseModel):
    """The scores, with shape [n, 1]."""

    name: Literal["rewards"]
    shape: list[int]
    datatype: Literal["FP64"]
    data: list[float]


class InferReply(BaseModel):
    """The model, and its one output."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]


class ModelReadiness(BaseModel):
    """A model that computes. For any other model the reply is an error."""

    name: str
    ready: bool


@router.post("/v2/models/{model}/infer", response_model=InferReply)
async def infer(
    request: Request,
    body: InferBody,
    parameters: ForeignParameters,
) -> Response:
    """Run v2 inference for KServe and Triton clients with the model's default version."""
    return await _infer(request, body, parameters)


@router.post("/v2/models/{model}/versions/{version}/infer", response_model=InferReply)
async def infer_version(
    request: Request,
    model: str,
    version: Version,
    *,
    body: InferBody,
    parameters: ForeignParameters,
) -> Response:
    """Run v2 inference for KServe and Triton clients: columns of texts in, rewards out."""
    return await _infer(request, body, replace(parameters, path_model=f"{model}@{version}"))


@router.get("/v2/models/{model}/ready", response_model=ModelReadiness)
async def model_ready(request: Request, model: str) -> Response:
    """Return 200 if the default version computed recently or computes now, else 503."""
    return await _ready(request, model)


@router.get("/v2/models/{model}/versions/{version}/ready", response_model=ModelReadiness)
async def version_ready(request: Request, model: str, version: Version) -> Response:
    """Return 200 if this version computed recently or computes now, else 503."""
    return await _ready(request, f"{model}@{version}")


async def _ready(request: Request, model: str) -> Response:
    served = resolve_model(request, model)
    loaded = isinstance(served.state, Ready)
    if not loaded or not await served.is_computing():
        state = "not computing" if loaded else served.state.name
        raise ModelNotReady(f"{served.id} is {state}", hint="/readyz says more")
    return json_response({"name": served.card.name, "ready": True})


async def _infer(request: Request, body: InferBody, parameters: Parameters) -> Response:
    served = select_model(request, parameters)
    items = list(_items(served, body))
    microseconds = body.parameters.timeout
    client_timeout = microseconds / 1e6 if microseconds else None
    reply = await score(
        request, served, items, parameters=parameters, client_timeout=client_timeout
    )
    shape = [len(items), 1]
    output = {"name": REWARDS, "shape": shape, "datatype": "FP64", "data": scores_of(reply)}
    identity = {"model_name": served.card.name, "model_version": str(served.card.version)}
    request_id = {} if body.id is None else {"id": body.id}
    return json_response({**identity, **request_id, "outputs": [output]})


def _items(served: ServedModel, body: InferBody) -> Iterator[Fields]:
    names = [column.name for column in body.inputs]
    known = read_fields(served.family.item)
    for row in zip(*(column.texts for column in body.inputs), strict=True):
        if names == [SENTENCES]:
            yield text_item(served, row[0])
        elif set(names) <= set(known):
            yield dict(zip(names, row, strict=True))
        else:
            raise InvalidRequest(
                f"inputs: no tensors {', '.join(names)} for {served.id}",
                hint=f"name them {SENTENCES}, or after fields of its items: {', '.join(known)}",
            )
