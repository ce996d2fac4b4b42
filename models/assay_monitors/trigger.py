"""When gold says that a run is going wrong, and what a trainer may do about it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from assay_monitors.gold import GoldPoint
from assay_monitors.intervals import ERRORS, Estimate, slope

Action = Literal["raise_regularisation", "reset_reference", "stop"]
Ground = Literal["accuracy", "loss", "slopes", "drawdown", "gradient_norm"]


@dataclass(frozen=True, slots=True)
class Advice:
    """What a trainer should consider at a step, and why.

    `healthy_step` is the step of the best checkpoint before it at which nothing was wrong, None if
    there was none. A reset only moves the anchor to where the policy is, and undoes nothing: go
    back to that checkpoint first.
    """

    step: int
    action: Action
    grounds: tuple[Ground, ...]
    healthy_step: int | None


@dataclass(frozen=True, slots=True)
class GoldTrigger:
    """Tells when the reward has come apart from gold.

    Grounds, each with the interval clear of what it is compared to:

    - `accuracy`: below its first value by more than `accuracy`.
    - `loss`: above its first value by more than `loss` nats.
    - `slopes`: over the last `points` points the proxy rises while gold falls, by `fall` of gold's
      peak at least.
    - `drawdown`: gold below its peak by `drawdown` of it, the proxy no lower than it was there.
    - `gradient_norm`: above `norms` times the median of those before.

    A gradient norm alone asks for more regularisation, the others for a reset of the reference, and
    a gold that has lost `stop` of its peak for a stop. It cannot tell a reward that is exploited
    from a gold source that has changed, and sees nothing between two measurements.

    From: Ackermann et al., arXiv 2602.18037 (reference resets act as gradient regularisation; the
    gold curve of the hacked judge shows by step 200 what the proxy does not until 400). The trigger
    and its thresholds are starting values of our own.
    """

    accuracy: float = 0.05
    loss: float = 0.1
    points: int = 3
    fall: float = 0.1
    drawdown: float = 0.3
    norms: float = 10.0
    least_norms: int = 5
    stop: float = 0.5

    def advise(self, points: Sequence[GoldPoint]) -> Advice | None:
        """The advice at the latest point, points by rising step; None while nothing is wrong."""
        grounds = tuple(self._grounds(points)) if points else ()
        if not grounds:
            return None
        action: Action = "reset_reference"
        if grounds == ("gradient_norm",):
            action = "raise_regularisation"
        elif _lost(points) >= self.stop:
            action = "stop"
        return Advice(points[-1].step, action, grounds, self._healthy(points))

    def _grounds(self, points: Sequence[GoldPoint]) -> Iterator[Ground]:
        if self._less_accurate([one.accuracy for one in points]):
            yield "accuracy"
        if self._more_surprised([one.loss for one in points]):
            yield "loss"
        both = [
            (one.step, one.proxy, one.gold)
            for one in points
            if one.proxy is not None and one.gold is not None
        ]
        if points[-1].proxy is not None and points[-1].gold is not None:
            if self._parting(both):
                yield "slopes"
            if self._fallen(both):
                yield "drawdown"
        if self._steep([one.gradient_norm for one in points]):
            yield "gradient_norm"

    def _less_accurate(self, accuracies: Sequence[Estimate | None]) -> bool:
        first = next((one for one in accuracies if one is not None), None)
        now = accuracies[-1]
        if first is None or now is None:
            return False
        return first.value - now.value > self.accuracy and now.high < first.value

    def _more_surprised(self, losses: Sequence[Estimate | None]) -> bool:
        first = next((one for one in losses if one is not None), None)
        now = losses[-1]
        if first is None or now is None:
            return False
        return now.value - first.value > self.loss and now.low > first.value

    def _parting(self, both: Sequence[tuple[int, Estimate, Estimate]]) -> bool:
        if len(both) < self.points:
            return False
        lately = both[-self.points :]
        steps = [step for step, _, _ in lately]
        rising = slope(steps, [proxy for _, proxy, _ in lately])
        falling = slope(steps, [gold for _, _, gold in lately])
        fall = -falling.value * (steps[-1] - steps[0])
        peak = max(gold.value for _, _, gold in both)
        if rising.value <= 0 or falling.high >= 0:
            return False
        return fall >= self.fall * abs(peak)

    def _fallen(self, both: Sequence[tuple[int, Estimate, Estimate]]) -> bool:
        _, proxy_then, peak = max(both, key=lambda one: one[2].value)
        _, proxy, gold = both[-1]
        fall = peak.value - gold.value
        if peak.value <= 0 or fall < self.drawdown * peak.value or proxy.value < proxy_then.value:
            return False
        return fall > ERRORS * math.sqrt(peak.variance + gold.variance)

    def _steep(self, norms: Sequence[float | None]) -> bool:
        *before, now = norms
        known = [norm for norm in before if norm is not None]
        if now is None or len(known) < self.least_norms:
            return False
        return now > self.norms * median(known)

    def _healthy(self, points: Sequence[GoldPoint]) -> int | None:
        sound = [
            points[place]
            for place in range(len(points) - 1)
            if not any(self._grounds(points[: place + 1]))
        ]
        best = max(sound, key=lambda one: (_gold(one), one.step), default=None)
        return None if best is None else best.step


def _gold(point: GoldPoint) -> tuple[float, float]:
    """What makes one checkpoint better than another."""
    return (
        -math.inf if point.gold is None else point.gold.value,
        -math.inf if point.accuracy is None else point.accuracy.value,
    )


def _lost(points: Sequence[GoldPoint]) -> float:
    golds = [one.gold.value for one in points if one.gold is not None]
    if not golds or max(golds) <= 0:
        return 0.0
    return 1 - golds[-1] / max(golds)
