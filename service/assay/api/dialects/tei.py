"""text-embeddings-inference: `/predict` for texts and pairs, `/rerank` for a query's texts."""

import math
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from assay.api.dialects._items import Fields, pair_item, text_item
from assay.api.dialects._service import (
    merge_truncation,
    probability,
    ranked_documents,
    require_scores,
    score,
    select_model,
)
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.parameters import ForeignParameters, Parameters
from assay.api.schemas import Accepted, Body, EngineBody, ItemList, ModelName
from assay.served_model import ServedModel
from assay.types import ItemResult
from assay_models.base import Options, Truncation

Inputs = Annotated[list[str], Field(min_length=1, max_length=2)]

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class TeiParameters(Body):
    """The parameters that `huggingface_hub` sends.

    The only supported function is `none`, which equals `raw_scores`. The reply contains the `top_k`
    highest labels.
    """

    function_to_apply: Literal["none"] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None


class _TeiBody(EngineBody):
    """`raw_scores` returns logits. Without `truncate`, an item that is too long is an error.

    `is_truncated` is another client's name for `truncate`. `model` may name one of several models.
    """

    model: ModelName | None = None
    raw_scores: bool = False
    truncate: bool | None = None
    is_truncated: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None

    def options(self, parameters: Parameters) -> Options:
        """Return the options of the scores: no truncation unless requested."""
        direction = self.truncation_direction
        side: Truncation | None = None
        if direction is not None:
            side = "left" if direction.lower() == "left" else "right"
        truncation = merge_truncation(
            parameters,
            requested=bool(self.truncate or self.is_truncated),
            side=side,
            default="right",
        )
        return Options(truncation, self.raw)

    @property
    def raw(self) -> bool:
        """Whether the reply's values are logits."""
        return self.raw_scores

    def value_of(self, result: ItemResult) -> float:
        """Return the value served for a result: its score as a logit, or activated."""
        assert result.score is not None
        return result.score if self.raw else probability(result)


class TeiPredictBody(_TeiBody):
    """`inputs`: a text, a pair of texts, or a list in which each of these is a list."""

    inputs: Annotated[
        str | Inputs | Annotated[list[Inputs], Field(min_length=1)],
        ItemList(),
    ]
    parameters: TeiParameters = TeiParameters()

    @property
    def raw(self) -> bool:
        """Whether the reply's values are logits, by either of the two fields."""
        return self.raw_scores or self.parameters.function_to_apply is not None

    def items(self, served: ServedModel) -> list[Fields]:
        """Return the items, in the fields of the model's family."""
        return [
            text_item(served, texts[0]) if len(texts) == 1 else pair_item(served, *texts)
            for texts in self._inputs
        ]

    @property
    def is_single(self) -> bool:
        """Whether the reply is a single entry rather than a list of entries."""
        return isinstance(self.inputs, str) or isinstance(self.inputs[0], str)

    @property
    def _inputs(self) -> list[list[str]]:
        if isinstance(self.inputs, str):
            return [[self.inputs]]
        texts = [entry for entry in self.inputs if isinstance(entry, str)]
        return [texts] if texts else [entry for entry in self.inputs if isinstance(entry, list)]


class TeiRerankBody(_TeiBody):
    """A query and the texts to rank by relevance to it; with a positive `top_n` only the best."""

    query: str
    texts: Annotated[list[str], Field(min_length=1), ItemList()]
    return_text: bool = False
    return_documents: bool = False
    top_n: Annotated[int, Field(ge=-1)] | None = None
    max_chunks_per_doc: Accepted = None


class TeiPrediction(BaseModel):
    """A value and its label. A model with probabilities has one entry per label, highest first."""

    score: float
    label: str


class TeiRank(BaseModel):
    """One text; `index` is its position in the request. An empty text may have no score."""

    index: int
    score: float | None
    text: str | None = None


Predictions = list[TeiPrediction] | list[list[TeiPrediction]]


@router.post("/predict", response_model=Predictions)
@router.post("/compat/tei/{model}/predict", response_model=Predictions)
async def predict(
    request: Request, body: TeiPredictBody, parameters: ForeignParameters
) -> Response:
    """Score texts or pairs for clients of text-embeddings-inference; raw with `raw_scores`."""
    served = select_model(request, parameters, body.model)
    items, options = body.items(served), body.options(parameters)
    reply = await score(request, served, items, parameters=parameters, options=options)
    predictions = [_predictions(result, body) for result in require_scores(reply)]
    return json_response(predictions[0] if body.is_single else predictions)


@router.post("/compat/tei/{model}/rerank", response_model=list[TeiRank])
async def rerank_texts(
    request: Request, body: TeiRerankBody, parameters: ForeignParameters
) -> Response:
    """Rank texts for clients of text-embeddings-inference by relevance to a query, best first."""
    served = select_model(request, parameters, body.model)
    reply = await score(
        request,
        served,
        [pair_item(served, body.query, text) for text in body.texts],
        parameters=parameters,
        lane="interactive",
        options=body.options(parameters),
    )
    best = ranked_documents(reply, body.texts, lambda result: _sort_key(result, body))
    limit = body.top_n if body.top_n is not None and body.top_n > 0 else None
    return json_response([_rank(result, body) for result in best[:limit]])


def _predictions(result: ItemResult, body: TeiPredictBody) -> list[dict[str, Any]]:
    probabilities = result.details.get("probabilities")
    if probabilities is None or body.raw:
        return [{"score": body.value_of(result), "label": next(iter(result.channels), "score")}]
    highest = sorted(probabilities.items(), key=lambda pair: pair[1], reverse=True)
    entries = [{"score": probability, "label": label} for label, probability in highest]
    return entries[: body.parameters.top_k]


def _sort_key(result: ItemResult, body: _TeiBody) -> tuple[float, float]:
    return body.value_of(result), -math.inf if result.raw is None else result.raw


def _rank(result: ItemResult, body: TeiRerankBody) -> dict[str, Any]:
    value = None if result.error is not None else body.value_of(result)
    entry: dict[str, Any] = {"index": result.index, "score": value}
    has_text = body.return_text or body.return_documents
    return {**entry, "text": body.texts[result.index]} if has_text else entry
