"""Cards of models whose raws an engine computes, and rows that can be sent to any protocol."""

from collections.abc import Mapping, Sequence
from typing import Any

from assay_models.base import ItemError, Raw
from assay_models.card import ModelCard
from assay_models.engines.client import Engine
from support.engine_servers import logits_of

MODELS = {"vllm": "rm", "sglang": "", "tei": "", "assay": "rm@1"}
Row = Sequence[int]


def engine_card(
    protocol: str, *urls: str, limits: Mapping[str, int] | None = None, **fields: Any
) -> ModelCard:
    """Return a card with a section `[engine]`."""
    engine = {"protocol": protocol, "urls": urls, "model": MODELS[protocol], **fields}
    name = {"name": "remote", "version": 1, "family": "reference"}
    return ModelCard.model_validate({**name, "limits": limits or {}, "engine": engine})


def text_of(row: Row) -> str:
    """Return a text that stands for a row where texts are sent; rows of numbers below 55,000."""
    return "".join(chr(token) for token in row)


async def classify(
    engine: Engine, rows: Sequence[Row], **options: Any
) -> Sequence[Raw | ItemError]:
    """Send rows as token ids, or as texts of these letters."""
    if engine.takes == "ids":
        return await engine.classify(rows, **options)
    return await engine.classify_texts([text_of(row) for row in rows], **options)


def raws_of(rows: Sequence[Row], labels: int = 1) -> list[Raw]:
    """Return the right raws."""
    return [logits_of(row, labels) for row in rows]


def codes_of(results: Sequence[Raw | ItemError]) -> Mapping[int, str]:
    """Return the codes of the rows that failed, by position."""
    return {
        position: result.code
        for position, result in enumerate(results)
        if isinstance(result, ItemError)
    }
