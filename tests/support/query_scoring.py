"""Scoring of queries by the family `video_qpp`, without a service."""

from typing import Any

from assay_models.base import Options, Prepared, Score
from assay_models.items import VideoQppItem


def prepare(model: Any, query: str, options: Options | None = None, **fields: Any) -> Prepared:
    """Return the prepared inputs of a query."""
    item = VideoQppItem.model_validate({"query": query, **fields})
    prepared: Prepared = model.prepare([item], options or Options())
    return prepared


def score(model: Any, query: str, options: Options | None = None, **fields: Any) -> Score:
    """Return the score of a query."""
    prepared = prepare(model, query, options, **fields)
    (served,) = model.finish(prepared, model.predict(prepared.inputs), options or Options())
    assert isinstance(served, Score)
    return served
