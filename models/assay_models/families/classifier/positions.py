"""The positions of a model's tokens, and the longest text that they allow."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from assay_models.card import CardError, ModelCard

_LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Rotary embeddings that Transformers computes by the longest row of a batch, beyond a length."""

_STRETCHED = ("linear", "yarn")
"""Rotary embeddings that reach further than `max_position_embeddings`, by their factor."""


def first_position(model: Any) -> int:
    """Return the number of a row's first position."""
    # RoBERTa and models like it number positions from behind the padding's.
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            return int(padding) + 1
    return 0


def refuse_longer_than_positions(card: ModelCard, model: Any) -> None:
    """Refuse a card whose texts may be longer than the checkpoint has positions.

    Raises:
        CardError: they may be; or they may be so long that the positions of all texts in a batch
            depend on the longest one.
    """
    limit, reason = _positions(model)
    if limit is not None and card.limits.max_tokens > limit:
        raise CardError(
            f"{card.id}: limits.max_tokens is {card.limits.max_tokens}, "
            f"the checkpoint has {limit} positions{reason}"
        )


def _positions(model: Any) -> tuple[int | None, str]:
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - first_position(model), ""
    config = model.config.get_text_config()
    stated: int | None = getattr(config, "max_position_embeddings", None)
    rotary = getattr(config, "rope_parameters", None) or {}
    kinds = [rotary] if "rope_type" in rotary else [*rotary.values()]
    for kind in (kind for kind in kinds if isinstance(kind, Mapping)):
        if kind.get("rope_type") in _LENGTH_DEPENDENT:
            original = kind.get("original_max_position_embeddings") or stated
            beyond = (
                f", beyond which a batch's longest text decides the others' ({kind['rope_type']})"
            )
            return original, beyond
    if stated is None or rotary.get("rope_type") not in _STRETCHED:
        return stated, ""
    original = rotary.get("original_max_position_embeddings") or stated
    return max(stated, int(original * rotary["factor"])), ""
