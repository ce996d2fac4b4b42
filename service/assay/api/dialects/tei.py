"""text-embeddings-inference: `/predict` for texts and pairs, `/rerank` for texts of a query."""

import math
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from assay.api.dialects._items import Fields, pair, single
from assay.api.dialects._service import probability, resolve_model, score, whole
from assay.api.errors import PROBLEMS
from assay.api.hot_routes import JsonRoute
from assay.api.json import json_response
from assay.api.schemas import Priority, Timeout
from assay.served_model import ServedModel
from assay.types import ItemResult, Lane
from assay_models.base import Options

Inputs = Annotated[list[str], Field(min_length=1, max_length=2)]

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class TeiParameters(BaseModel):
    """What `huggingface_hub` sends beside the inputs. Of functions to apply there is `none`, which
    is the same as `raw_scores`; of the labels the `top_k` highest come back.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    function_to_apply: Literal["none"] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None


class _TeiBody(BaseModel):
    """`raw_scores` gives logits; `truncate` cuts what is too long, which otherwise is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    raw_scores: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] = "Right"

    @property
    def options(self) -> Options:
        """Of the scores."""
        left = self.truncation_direction.lower() == "left"
        return Options(("left" if left else "right") if self.truncate else "error", self.raw)

    @property
    def raw(self) -> bool:
        """Whether numbers are logits."""
        return self.raw_scores

    def number(self, result: ItemResult) -> float:
        """What is served of a result."""
        assert result.score is not None
        return result.score if self.raw else probability(result)


class TeiPredictBody(_TeiBody):
    """`inputs`: a text, a pair of texts, or a list of either, each in a list of its own."""

    inputs: str | Inputs | Annotated[list[Inputs], Field(min_length=1)]
    parameters: TeiParameters = TeiParameters()

    @property
    def raw(self) -> bool:
        """Whether numbers are logits, said in either way."""
        return self.raw_scores or self.parameters.function_to_apply is not None

    def items(self, served: ServedModel) -> list[Fields]:
        """In the fields of the model's family."""
        return [
            single(served, texts[0]) if len(texts) == 1 else pair(served, *texts)
            for texts in self._listed
        ]

    @property
    def is_one(self) -> bool:
        """Whether the reply is the one entry, and not a list of them."""
        return isinstance(self.inputs, str) or isinstance(self.inputs[0], str)

    @property
    def _listed(self) -> list[list[str]]:
        if isinstance(self.inputs, str):
            return [[self.inputs]]
        texts = [one for one in self.inputs if isinstance(one, str)]
        return [texts] if texts else [one for one in self.inputs if isinstance(one, list)]


class TeiRerankBody(_TeiBody):
    """A query and the texts to rank for it."""

    query: str
    texts: Annotated[list[str], Field(min_length=1)]
    return_text: bool = False


class TeiPrediction(BaseModel):
    """A number and its name: of a model with probabilities one entry each, the highest first."""

    score: float
    label: str


class TeiRank(BaseModel):
    """One text; `index` is its place in the request."""

    index: int
    score: float
    text: str | None = None


Predictions = list[TeiPrediction] | list[list[TeiPrediction]]


@router.post("/predict", response_model=Predictions)
@router.post("/compat/tei/{model}/predict", response_model=Predictions)
async def predict(
    request: Request,
    body: TeiPredictBody,
    model: str | None = None,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """For clients of text-embeddings-inference: texts and pairs, logistic unless `raw_scores`."""
    served = resolve_model(request, model)
    items = body.items(served)
    reply = await score(request, served, items, timeout, priority, options=body.options)
    told = [_labelled(result, body) for result in whole(reply)]
    return json_response(told[0] if body.is_one else told)


@router.post("/compat/tei/{model}/rerank", response_model=list[TeiRank])
async def rerank_texts(
    request: Request,
    model: str,
    body: TeiRerankBody,
    timeout: Timeout = None,
    priority: Priority = "interactive",
) -> Response:
    """For clients of text-embeddings-inference: texts by relevance to a query, best first."""
    return await ranked(request, model, body, timeout, priority)


async def ranked(
    request: Request, model: str | None, body: TeiRerankBody, timeout: int | None, lane: Lane
) -> Response:
    """The reply of `/rerank`."""
    served = resolve_model(request, model)
    items = [pair(served, body.query, text) for text in body.texts]
    reply = await score(request, served, items, timeout, lane, options=body.options)
    best = sorted(whole(reply), key=lambda result: _place(result, body), reverse=True)
    return json_response([_told(result, body) for result in best])


def _labelled(result: ItemResult, body: TeiPredictBody) -> list[dict[str, Any]]:
    probabilities = result.details.get("probabilities")
    if probabilities is None or body.raw:
        return [{"score": body.number(result), "label": next(iter(result.channels), "score")}]
    highest = sorted(probabilities.items(), key=lambda pair: pair[1], reverse=True)
    told = [{"score": share, "label": label} for label, share in highest]
    return told[: body.parameters.top_k]


def _place(result: ItemResult, body: _TeiBody) -> tuple[float, float]:
    return body.number(result), -math.inf if result.raw is None else result.raw


def _told(result: ItemResult, body: TeiRerankBody) -> dict[str, Any]:
    told: dict[str, Any] = {"index": result.index, "score": body.number(result)}
    return {**told, "text": body.texts[result.index]} if body.return_text else told
