"""The gradient of `L + lambda/2 * |grad L|^2`, by a finite difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

PUBLISHED_EXCLUDED = ("embed", "embedding", "lm_head", "output", "classifier", "score")
_PUBLISHED_MAX_NORM = 10.0

Named = Iterable[tuple[str, Any]]


@dataclass(frozen=True)
class GradientReport:
    """Figures of one optimiser step, of the parameters that are regularised.

    Attributes:
        norm: of the gradient g at theta; `perturbed_norm`: of that at the perturbed theta.
        ratio: `|lambda H g| / |g|`.
        coefficient: the lambda used.
        is_degenerate: g is zero or not finite, as where every group has equal rewards, or the
            second gradient is not finite: the step was left as it was.
    """

    norm: float
    perturbed_norm: float
    ratio: float
    coefficient: float
    is_degenerate: bool = False


class GradientRegulariser:
    """Replaces the gradient g of a step by `g + lambda H g`.

    The Hessian's product is a forward difference along the normalised gradient, `H g = |g| (g2 -
    g) / step`, with g2 the gradient at `theta + step * g / |g|` of the same loss on the same
    completions and advantages. By default lambda follows from `ratio`: lambda depends on the scale
    of the loss, and the ratio does not. Gradients are kept in single precision. Weights below
    single precision lose a small step: train with weights in single precision.

    Args:
        ratio: the wanted `|lambda H g| / |g|`.
        coefficient: a fixed lambda instead.
        max_coefficient: the largest lambda that `ratio` may lead to.
        step: the length of the perturbation; with `published`, what the gradient is multiplied by.
        published: the variant of the authors' code: g and g2 are clipped to the norm 10, and the
            perturbation is `step * g`, not normalised. Clipping biases the difference whenever it
            engages. It requires a `coefficient`; the authors' are 1e-2 and 1e-3.
        exclude: parts of names of parameters which are neither perturbed nor regularised; they keep
            g.

    Attributes:
        degenerate_steps: the number of steps that were left as they were.

    Raises:
        ValueError: an argument is out of range, or `published` has no `coefficient`.
    """

    def __init__(
        self,
        ratio: float = 0.3,
        *,
        coefficient: float | None = None,
        max_coefficient: float = 5.0,
        step: float = 1e-3,
        published: bool = False,
        exclude: Sequence[str] = PUBLISHED_EXCLUDED,
    ) -> None:
        numbers = (ratio, max_coefficient, step, 0.0 if coefficient is None else coefficient)
        if not all(math.isfinite(number) and number >= 0 for number in numbers) or not step:
            raise ValueError("ratio, coefficients and step must be finite, and step above 0")
        if published and coefficient is None:
            raise ValueError("published requires a coefficient, such as 1e-3")
        if isinstance(exclude, str):
            raise ValueError("exclude must be several parts of names, or ()")
        self.ratio = ratio
        self.coefficient = coefficient
        self.max_coefficient = max_coefficient
        self.step = step
        self.published = published
        self.exclude = tuple(exclude)
        self.degenerate_steps = 0

    def scale(self, factor: float, maximum: float) -> None:
        """Multiply the ratio, or the fixed coefficient, by a factor, up to a maximum."""
        if self.coefficient is None:
            self.ratio = max(self.ratio, min(self.ratio * factor, maximum))
        else:
            self.coefficient = max(self.coefficient, min(self.coefficient * factor, maximum))

    def regularise(self, parameters: Named, recompute: Callable[[], object]) -> GradientReport:
        """Replace the gradients of a step, right before the optimiser reads them.

        The weights are restored bit by bit, also if `recompute` raises.

        Args:
            parameters: with their names, as `model.named_parameters()`; g is in their `grad`.
            recompute: adds to `grad` the gradient of the step's loss at the present weights: the
                backward passes of all micro-batches.
        """
        named = [(name, tensor) for name, tensor in parameters if tensor.grad is not None]
        own = [tensor for name, tensor in named if not any(part in name for part in self.exclude)]
        norm = _norm([tensor.grad for tensor in own])
        if not (norm > 0 and math.isfinite(norm)):
            return self._leave(norm)
        before = [_precise(tensor.grad).clone() for tensor in own]
        before = self._clip(before, norm)
        after = self._gradients_of_step(named, own, before, norm, recompute)
        perturbed_norm = _norm(after)
        if not math.isfinite(perturbed_norm):
            return self._leave(norm)
        after = self._clip(after, perturbed_norm)
        return self._combine(own, before, after, norm, perturbed_norm)

    def _gradients_of_step(
        self,
        named: Sequence[tuple[str, Any]],
        own: Sequence[Any],
        before: Sequence[Any],
        norm: float,
        recompute: Callable[[], object],
    ) -> list[Any]:
        """Return the gradients at the perturbed weights; restore weights and gradients."""
        length = self.step if self.published else self.step / norm
        weights = [tensor.detach().clone() for tensor in own]
        given = [tensor.grad for _, tensor in named]
        for _, tensor in named:
            tensor.grad = None
        try:
            for tensor, gradient in _pairs(own, before):
                tensor.data.add_(gradient.to(tensor.dtype), alpha=length)
            recompute()
            return [
                gradient.new_zeros(gradient.shape) if tensor.grad is None else _precise(tensor.grad)
                for tensor, gradient in _pairs(own, before)
            ]
        finally:
            for tensor, weight in _pairs(own, weights):
                tensor.data.copy_(weight)
            for (_, tensor), gradient in _pairs(named, given):
                tensor.grad = gradient

    def _combine(
        self,
        own: Sequence[Any],
        before: Sequence[Any],
        after: Sequence[Any],
        norm: float,
        perturbed_norm: float,
    ) -> GradientReport:
        scale = 1 / self.step if self.published else norm / self.step
        products = [(g2 - g) * scale for g, g2 in _pairs(before, after)]
        length = _norm(products)
        used_norm = _norm(before)
        coefficient = self.coefficient
        if coefficient is None:
            wanted = self.ratio * used_norm / length if length else 0.0
            coefficient = min(wanted, self.max_coefficient)
        for tensor, gradient, product in zip(own, before, products):
            tensor.grad.copy_(gradient + coefficient * product)
        return GradientReport(norm, perturbed_norm, coefficient * length / used_norm, coefficient)

    def _clip(self, gradients: list[Any], norm: float) -> list[Any]:
        if not self.published or norm <= _PUBLISHED_MAX_NORM:
            return gradients
        return [gradient * (_PUBLISHED_MAX_NORM / norm) for gradient in gradients]

    def _leave(self, norm: float) -> GradientReport:
        self.degenerate_steps += 1
        return GradientReport(norm, 0.0, 0.0, 0.0, is_degenerate=True)


def _pairs(first: Sequence[Any], second: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(first, second)


def _precise(tensor: Any) -> Any:
    """Return a gradient in single precision, or in double where it is."""
    return tensor.detach() if tensor.element_size() == 8 else tensor.detach().float()


def _norm(tensors: Sequence[Any]) -> float:
    """Return the Euclidean norm over all tensors."""
    return math.sqrt(sum(float(_precise(tensor).norm()) ** 2 for tensor in tensors))
