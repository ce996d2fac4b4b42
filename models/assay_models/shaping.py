"""Rewards and probabilities from raw outputs, in forms that neither overflow nor lose digits."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

Shaping = Literal["identity", "sigmoid", "softplus"]


def identity(raw: float) -> float:
    """Return the raw itself."""
    return raw


def sigmoid(raw: float) -> float:
    """Return 1 / (1 + e^-raw), in (0, 1): the probability whose log-odds are `raw`.

    Below zero it is computed as e^raw / (1 + e^raw), so that the exponential never overflows.
    """
    small = math.exp(-abs(raw))
    return 1 / (1 + small) if raw >= 0 else small / (1 + small)


def softplus(raw: float) -> float:
    """Return ln(1 + e^raw), above 0 (Dugas et al., 2001), as max(raw, 0) + ln(1 + e^-|raw|)."""
    return max(raw, 0.0) + math.log1p(math.exp(-abs(raw)))


SHAPES: dict[Shaping, Callable[[float], float]] = {
    "identity": identity,
    "sigmoid": sigmoid,
    "softplus": softplus,
}


def shape(name: Shaping, raw: float) -> float:
    """Apply the shaping of that name to `raw`; NaN stays NaN."""
    return SHAPES[name](raw)


def probabilities(logits: Sequence[float]) -> list[float]:
    """Return softmax(logits): e^(x - max) over their sum."""
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def log_odds(logits: Sequence[float], index: int) -> float:
    """Return ln(p / (1 - p)) of one softmax outcome: its logit minus the others' log-sum-exp.

    Unlike the probability it does not saturate at 1 where the model is confident.
    """
    others = [logit for place, logit in enumerate(logits) if place != index]
    highest = max(others)
    total = math.fsum(math.exp(logit - highest) for logit in others)
    return logits[index] - highest - math.log(total)
