"""From raw outputs to rewards and probabilities, in forms that neither overflow nor lose digits."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

Shaping = Literal["identity", "sigmoid", "softplus"]


def identity(raw: float) -> float:
    """The raw itself."""
    return raw


def sigmoid(raw: float) -> float:
    """1 / (1 + e^-raw), in (0, 1): the probability whose log-odds are `raw`.

    Below zero it is computed as e^raw / (1 + e^raw), so that the exponential never overflows.
    """
    small = math.exp(-abs(raw))
    return 1 / (1 + small) if raw >= 0 else small / (1 + small)


def softplus(raw: float) -> float:
    """ln(1 + e^raw), above 0 (Dugas et al., 2001), as max(raw, 0) + ln(1 + e^-|raw|)."""
    return max(raw, 0.0) + math.log1p(math.exp(-abs(raw)))


SHAPES: dict[Shaping, Callable[[float], float]] = {
    "identity": identity,
    "sigmoid": sigmoid,
    "softplus": softplus,
}


def shape(name: Shaping, raw: float) -> float:
    """`raw` after the shaping of that name; NaN stays NaN."""
    return SHAPES[name](raw)


def probabilities(logits: Sequence[float]) -> list[float]:
    """softmax(logits): e^(x - max) over their sum."""
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def log_odds(logits: Sequence[float], index: int) -> float:
    """ln(p / (1 - p)) of one of the softmax's outcomes: its logit minus the others' log-sum-exp.

    Unlike the probability it does not stick to 1 where the model is sure.
    """
    others = [logit for at, logit in enumerate(logits) if at != index]
    highest = max(others)
    total = math.fsum(math.exp(logit - highest) for logit in others)
    return logits[index] - highest - math.log(total)
