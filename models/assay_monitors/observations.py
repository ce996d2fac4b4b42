"""Observation: the numbers and names of one scored item that the monitor keeps, and no text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from assay_monitors.scripts import dominant_script

SHADOW_SPLIT = "shadow/"
"""The beginning of the splits of scores that were never served, of a model that shadows another."""


def is_shadow(split: str | None) -> bool:
    """Return whether a split holds scores that were never served."""
    return split is not None and split.startswith(SHADOW_SPLIT)


class Window(NamedTuple):
    """The key under which observations are summed: run, model, split and step.

    Scores of different models have different scales, and a policy is evaluated otherwise than it is
    trained, so neither is ever summed together.
    """

    run: str
    model: str
    split: str
    step: int


@dataclass(frozen=True, slots=True)
class Observation:
    """One item of a request that names its run.

    Args:
        score: as served; None where the item could not be scored, even if a substitute was served.
        channels: parts of the score by name; None where a channel was not scored.
        labels: the number of verdicts by label: one for a pair, one a claim for an answer.
        flags: of the result; `truncated` among them counts as truncated.
        group: the prompt's name, as the caller gave it; only a digest of it is kept.
        source: of the number (`computed`, `cache`, …).
        invalid: whether the response held nothing to score: no program, no answer, no claim.
        characters: the response's length in characters.
        tokens: the response's length in tokens.
        script: the script of most letters of the response.
        calls: the number of tool calls, or searches, in the response.
    """

    score: float | None
    channels: Mapping[str, float | None] = field(default_factory=dict)
    _: KW_ONLY
    labels: Mapping[str, int] = field(default_factory=dict)
    flags: Sequence[str] = ()
    group: str | None = None
    source: str | None = None
    invalid: bool = False
    characters: int | None = None
    tokens: int | None = None
    script: str | None = None
    calls: int | None = None


class TextMeasures(NamedTuple):
    """The length of a response in characters, and its script."""

    characters: int
    script: str


def measure_text(response: str) -> TextMeasures:
    """Return the measures of a response, after which its text is no longer needed."""
    return TextMeasures(len(response), dominant_script(response))


def group_digest(group: str) -> str:
    """Return an opaque name for a group: 16 hexadecimal digits of its BLAKE2b hash."""
    return blake2b(group.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def finite_or_none(value: float | None) -> float | None:
    """Return the value if it is a finite number, else None."""
    return value if value is not None and math.isfinite(value) else None
