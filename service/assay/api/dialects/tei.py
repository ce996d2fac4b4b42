"""text-embeddings-inference: `/predict` for texts and pairs, `/rerank` for a query's texts."""

import math
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from assay.api.dialects._items import Fields, pair_item, text_item
from assay.api.dialects._service import probability, require_scores, resolve_model, score
from assay.api.errors import PROBLEMS
from assay.api.json import json_response
from assay.api.json_route import JsonRoute
from assay.api.schemas import Priority, Timeout
from assay.served_model import ServedModel
from assay.types import ItemResult, Lane
from assay_models.base import Options

Inputs = Annotated[list[str], Field(min_length=1, max_length=2)]

router = APIRouter(route_class=JsonRoute, responses=PROBLEMS, tags=["engines"])


class TeiParameters(BaseModel):
    """The parameters that `huggingface_hub` sends.

    The only supported function is `none`, which equals `raw_scores`. The reply contains the `top_k`
    highest labels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    function_to_apply: Literal["none"] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None


class _TeiBody(BaseModel):
    """`raw_scores` returns logits. Without `truncate`, an item that is too long is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    raw_scores: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] = "Right"

    @property
    def options(self) -> Options:
        """The options of the scores."""
        left = self.truncation_direction.lower() == "left"
        return Options(("left" if left else "right") if self.truncate else "error", self.raw)

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

    inputs: str | Inputs | Annotated[list[Inputs], Field(min_length=1)]
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
    """A query and the texts to rank by relevance to it."""

    query: str
    texts: Annotated[list[str], Field(min_length=1)]
    return_text: bool = False


class TeiPrediction(BaseModel):
    """A value and its label. A model with probabilities has one entry per label, highest first."""

    score: float
    label: str


class TeiRank(BaseModel):
    """One text; `index` is its position in the request."""

    index: int
    score: float
    text: str | None = None


Predictions = list[TeiPrediction] | list[list[TeiPrediction]]


@router.post("/predict", response_model=Predictions)
@router.post("/compat/tei/{model}/predict", response_model=Predictions)
async def predict(
    request: Request,
    body: TeiPredictBody,
    *,
    model: str | None = None,
    timeout: Timeout = None,
    priority: Priority = "training",
) -> Response:
    """Score texts or pairs for clients of text-embeddings-inference; raw with `raw_scores`."""
    served = resolve_model(request, model)
    items = body.items(served)
    reply = await score(
        request, served, items, timeout=timeout, lane=priority, options=body.options
    )
    predictions = [_predictions(result, body) for result in require_scores(reply)]
    return json_response(predictions[0] if body.is_single else predictions)


@router.post("/compat/tei/{model}/rerank", response_model=list[TeiRank])
async def rerank_texts(
    request: Request,
    model: str,
    *,
    body: TeiRerankBody,
    timeout: Timeout = None,
    priority: Priority = "interactive",
) -> Response:
    """Rank texts for clients of text-embeddings-inference by relevance to a query, best first."""
    return await rerank_reply(request, model, body, timeout=timeout, lane=priority)


async def rerank_reply(
    request: Request, model: str | None, body: TeiRerankBody, *, timeout: int | None, lane: Lane
) -> Response:
    """Return the reply of `/rerank`."""
    served = resolve_model(request, model)
    items = [pair_item(served, body.query, text) for text in body.texts]
    reply = await score(request, served, items, timeout=timeout, lane=lane, options=body.options)
    results = require_scores(reply)
    best = sorted(results, key=lambda result: _sort_key(result, body), reverse=True)
    return json_response([_rank(result, body) for result in best])


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
    entry: dict[str, Any] = {"index": result.index, "score": body.value_of(result)}
    return {**entry, "text": body.texts[result.index]} if body.return_text else entry
