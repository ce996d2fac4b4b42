"""The fingerprint of a served number: the model's, the card's options, and those of the request."""

from itertools import product
from typing import get_args

from assay_models.base import Options, Truncation
from assay_models.card import ModelCard
from assay_models.repository import fingerprint_of


def plain_fingerprints(raw: str, card: ModelCard) -> dict[Options, str]:
    """Return the fingerprint for each choice of options without numbers.

    Args:
        raw: the model's own fingerprint.
        card: its card.
    """
    choices = product(get_args(Truncation), (False, True))
    plain = [Options(truncation, shaping) for truncation, shaping in choices]
    return {options: served_fingerprint(raw, card, options) for options in plain}


def served_fingerprint(raw: str, card: ModelCard, options: Options) -> str:
    """Return the digest of all that decides a number served with these options."""
    return fingerprint_of({"raw": raw, "card": card.options, "for": options})
