"""Advice to reset the reference, raise regularisation or stop, from a run's gold measurements."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple, TypeGuard

from assay_monitors.gold import GoldPoint
from assay_monitors.intervals import Z_95, Estimate, slope

Action = Literal["raise_regularisation", "reset_reference", "stop"]
Ground = Literal["reversed", "accuracy", "loss", "slopes", "drawdown", "gradient_norm"]


@dataclass(frozen=True, slots=True)
class Advice:
    """An action that a trainer should consider at a step, and its grounds.

    `healthy_step` is the step of the best checkpoint before it at which nothing was wrong, None if
    there was none. A reset only moves the anchor to where the policy is, and undoes nothing: go
    back to that checkpoint first.
    """

    step: int
    action: Action
    grounds: tuple[Ground, ...]
    healthy_step: int | None


class ProxyAndGold(NamedTuple):
    """The mean reward and the mean gold of a step at which both were measured."""

    step: int
    proxy: Estimate
    gold: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldAdvisor:
    """Advises a trainer when the reward no longer agrees with gold.

    Grounds, each with the interval clear of the value that it is compared to, and from
    `min_responses` responses or pairs or more at each step that is compared: fewer may all be equal
    by chance, and seem to have no error. A mean that was computed elsewhere has none (`exact`).

    - `reversed`: whatever they were at first, the rank correlation of reward and gold is below
      zero, and the accuracy below one half, each by two half widths of its interval. Prompts that
      differ make the one, and ties the other, not both.
    - `accuracy`: below its first value by more than `accuracy_drop`.
    - `loss`: above its first value by more than `loss_rise` nats.
    - `slopes`: over the last `trend_points` points the proxy rises while gold falls, by at least
      `trend_fall` of gold's peak.
    - `drawdown`: gold below its peak by `drawdown` of it, the proxy no lower than it was there.
    - `gradient_norm`: above `norm_factor` times the median of at least `min_norms` before it.

    A gradient norm alone asks for more regularisation, the others for a reset of the reference. A
    reward that is reversed asks for a stop, and so does a gold that has lost `stop_drawdown` of its
    peak. It cannot distinguish a reward that is exploited from a gold source that has changed, and
    sees nothing between two measurements.

    From: Ackermann et al., arXiv 2602.18037 (reference resets act as gradient regularisation; the
    gold curve of the hacked judge shows by step 200 what the proxy does not until 400). The grounds
    and their thresholds are starting values of our own.
    """

    min_responses: int = 20
    accuracy_drop: float = 0.05
    loss_rise: float = 0.1
    trend_points: int = 3
    trend_fall: float = 0.1
    drawdown: float = 0.3
    norm_factor: float = 10.0
    min_norms: int = 5
    stop_drawdown: float = 0.5

    def advise(self, points: Sequence[GoldPoint]) -> Advice | None:
        """Return the advice at the latest point, points by rising step; None if none is due."""
        grounds = tuple(self._grounds(points)) if points else ()
        if not grounds:
            return None
        action: Action = "reset_reference"
        if grounds == ("gradient_norm",):
            action = "raise_regularisation"
        elif "reversed" in grounds or _gold_drawdown(points) >= self.stop_drawdown:
            action = "stop"
        return Advice(points[-1].step, action, grounds, self._healthy_step(points))

    def _grounds(self, points: Sequence[GoldPoint]) -> Iterator[Ground]:
        if self._is_reversed(points[-1]):
            yield "reversed"
        if self._accuracy_fell([point.accuracy for point in points]):
            yield "accuracy"
        if self._loss_rose([point.loss for point in points]):
            yield "loss"
        both = [
            ProxyAndGold(point.step, point.proxy, point.gold)
            for point in points
            if self._is_enough(point.proxy) and self._is_enough(point.gold)
        ]
        if both and both[-1].step == points[-1].step:
            if self._trends_diverge(both):
                yield "slopes"
            if self._gold_fell(both):
                yield "drawdown"
        if self._norm_jumped([point.gradient_norm for point in points]):
            yield "gradient_norm"

    def _is_reversed(self, point: GoldPoint) -> bool:
        rank, accuracy = point.rank, point.accuracy
        if rank is None or accuracy is None or rank.n < self.min_responses:
            return False
        return _surely_below(rank, 0.0) and _surely_below(accuracy, 0.5)

    def _is_enough(self, estimate: Estimate | None) -> TypeGuard[Estimate]:
        """Return whether a mean is exact, or of enough responses or pairs."""
        return estimate is not None and (estimate.n == 1 or estimate.n >= self.min_responses)

    def _accuracy_fell(self, accuracies: Sequence[Estimate | None]) -> bool:
        enough = [share for share in accuracies if share and share.n >= self.min_responses]
        if not enough or enough[-1] is not accuracies[-1]:
            return False
        first, now = enough[0], enough[-1]
        return first.value - now.value > self.accuracy_drop and now.high < first.value

    def _loss_rose(self, losses: Sequence[Estimate | None]) -> bool:
        first = next(filter(self._is_enough, losses), None)
        now = losses[-1]
        if first is None or not self._is_enough(now):
            return False
        return now.value - first.value > self.loss_rise and now.low > first.value

    def _trends_diverge(self, both: Sequence[ProxyAndGold]) -> bool:
        if len(both) < self.trend_points:
            return False
        recent = both[-self.trend_points :]
        steps = [point.step for point in recent]
        proxy_slope = slope(steps, [point.proxy for point in recent])
        gold_slope = slope(steps, [point.gold for point in recent])
        fall = -gold_slope.value * (steps[-1] - steps[0])
        peak = max(point.gold.value for point in both)
        if proxy_slope.value <= 0 or gold_slope.high >= 0:
            return False
        return fall >= self.trend_fall * abs(peak)

    def _gold_fell(self, both: Sequence[ProxyAndGold]) -> bool:
        at_peak, now = max(both, key=lambda point: point.gold.value), both[-1]
        peak = at_peak.gold
        fall = peak.value - now.gold.value
        if peak.value <= 0 or fall < self.drawdown * peak.value:
            return False
        if now.proxy.value < at_peak.proxy.value:
            return False
        return fall > Z_95 * math.sqrt(peak.variance + now.gold.variance)

    def _norm_jumped(self, norms: Sequence[float | None]) -> bool:
        *before, now = norms
        known = [norm for norm in before if norm is not None]
        if now is None or len(known) < self.min_norms:
            return False
        return now > self.norm_factor * median(known)

    def _healthy_step(self, points: Sequence[GoldPoint]) -> int | None:
        healthy = [
            points[place]
            for place in range(len(points) - 1)
            if not any(self._grounds(points[: place + 1]))
        ]
        best = max(healthy, key=lambda point: (_quality(point), point.step), default=None)
        return None if best is None else best.step


def _surely_below(estimate: Estimate, bound: float) -> bool:
    return estimate.value + 2 * (estimate.high - estimate.value) < bound


def _quality(point: GoldPoint) -> tuple[float, float]:
    """Return the key by which checkpoints are compared: mean gold, then reward accuracy."""
    return (
        -math.inf if point.gold is None else point.gold.value,
        -math.inf if point.accuracy is None else point.accuracy.value,
    )


def _gold_drawdown(points: Sequence[GoldPoint]) -> float:
    golds = [point.gold.value for point in points if point.gold is not None]
    if not golds or max(golds) <= 0:
        return 0.0
    return 1 - golds[-1] / max(golds)
