"""What one scored item tells the monitor. Numbers and names of the model's own; never a text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from assay_monitors.scripts import dominant_script


class Window(NamedTuple):
    """Where observations belong: one step of one run, as one model scored it, in one split.

    Scores of different models have different scales, and a policy is evaluated otherwise than it is
    trained, so neither is ever added up. A run that names no step has all in step 0.
    """

    run: str
    model: str
    split: str
    step: int


@dataclass(frozen=True, slots=True)
class Observation:
    """One item of a request that names its run.

    Args:
        score: what was served; None where the item could not be scored, a substitute included.
        channels: parts of the score by name; None where one was not scored.
        labels: verdicts by name, and how many of each: one for a pair, one a claim for an answer.
        flags: of the result; `truncated` among them counts as that.
        group: the prompt's name, as the caller gave it; only a digest of it is kept.
        source: where the number came from (`computed`, `cache`, …).
        invalid: nothing to score was found in the response: no program, no answer, no claim.
        characters: of the response.
        tokens: of the response.
        script: of most letters of the response.
        calls: of tools, or searches, in the response.
    """

    score: float | None
    channels: Mapping[str, float | None] = field(default_factory=dict)
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
    """What is kept of a response: its length in characters and its script."""

    characters: int
    script: str


def measured(response: str) -> TextMeasures:
    """The measures of a response, after which it is no longer needed."""
    return TextMeasures(len(response), dominant_script(response))


def group_digest(group: str) -> str:
    """A name for a group that says nothing about it: 16 hexadecimal digits."""
    return blake2b(group.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def finite(value: float | None) -> float | None:
    """The value if it is a number that can be added up, else None."""
    return value if value is not None and math.isfinite(value) else None
