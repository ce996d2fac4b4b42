"""Gradient regularisation on a quadratic, whose Hessian is known, and its reaction to gold."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from assay_client.callbacks.run_health import Firing
from assay_client.regularisation import (
    GoldResponse,
    GradientRegulariser,
    copy_policy_to_reference,
)

HESSIAN = torch.diag(torch.tensor([4.0, 1.0, 0.25], dtype=torch.double))
HESSIAN[0, 1] = HESSIAN[1, 0] = 0.5
START = torch.tensor([1.0, -2.0, 3.0], dtype=torch.double)
GRADIENT = HESSIAN @ START
PRODUCT = HESSIAN @ GRADIENT


class Quadratic:
    """A loss of `theta' H theta / 2`, in parts that add up, and of another parameter's square."""

    def __init__(self, start: torch.Tensor = START, parts: int = 1) -> None:
        self.theta = start.clone().requires_grad_()
        self.head = torch.ones(2, dtype=torch.double, requires_grad=True)
        self.parts = parts
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.backward()

    def backward(self) -> None:
        self.seen.append((self.theta.detach().clone(), self.head.detach().clone()))
        for _ in range(self.parts):
            loss = self.theta @ HESSIAN @ self.theta / 2 + 3 * self.head.square().sum() / 2
            torch.autograd.backward(loss / self.parts)

    def named(self) -> list[tuple[str, Any]]:
        return [("layer.weight", self.theta), ("lm_head.weight", self.head)]

    def regularise(self, regulariser: GradientRegulariser) -> Any:
        return regulariser.regularise(self.named(), self.backward)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_quadratics_gradient_is_regularised_exactly(parts: int) -> None:
    loss = Quadratic(parts=parts)
    report = loss.regularise(GradientRegulariser(coefficient=0.1))
    torch.testing.assert_close(loss.theta.grad, GRADIENT + 0.1 * PRODUCT, rtol=1e-9, atol=1e-9)
    assert report.norm == pytest.approx(GRADIENT.norm().item())
    assert report.ratio == pytest.approx(0.1 * (PRODUCT.norm() / GRADIENT.norm()).item())
    assert not report.is_degenerate


def test_the_coefficient_follows_from_the_ratio() -> None:
    loss = Quadratic()
    report = loss.regularise(GradientRegulariser(ratio=0.3))
    wanted = 0.3 * GRADIENT.norm() / PRODUCT.norm()
    assert report.ratio == pytest.approx(0.3)
    assert report.coefficient == pytest.approx(wanted.item())
    torch.testing.assert_close(loss.theta.grad, GRADIENT + wanted * PRODUCT, rtol=1e-8, atol=1e-8)
    capped = Quadratic().regularise(GradientRegulariser(ratio=0.3, max_coefficient=0.01))
    assert capped.coefficient == 0.01
    assert capped.ratio < 0.3


def test_the_default_neither_clips_nor_depends_on_the_size_of_the_gradient() -> None:
    large = Quadratic(1000 * START)
    large.regularise(GradientRegulariser(coefficient=0.1))
    expected = 1000 * (GRADIENT + 0.1 * PRODUCT)
    torch.testing.assert_close(large.theta.grad, expected, rtol=1e-6, atol=0)


def test_the_published_variant_clips_before_the_difference() -> None:
    start, step, coefficient = 10 * START, 1e-3, 1e-2
    loss = Quadratic(start)
    report = loss.regularise(
        GradientRegulariser(coefficient=coefficient, step=step, published=True)
    )
    first = HESSIAN @ start
    assert report.norm == pytest.approx(first.norm().item())
    assert report.norm > 10
    first = first * 10 / first.norm()
    second = HESSIAN @ (start + step * first)
    second = second * 10 / second.norm()
    expected = first + coefficient / step * (second - first)
    torch.testing.assert_close(loss.theta.grad, expected, rtol=1e-8, atol=1e-8)


def test_the_published_pair_of_equal_numbers_is_the_second_gradient() -> None:
    loss = Quadratic(START / 10)
    loss.regularise(GradientRegulariser(coefficient=1e-3, step=1e-3, published=True))
    second = HESSIAN @ (START + 1e-3 * GRADIENT) / 10
    torch.testing.assert_close(loss.theta.grad, second, rtol=1e-9, atol=1e-9)


def test_excluded_parameters_keep_their_gradient_and_their_place() -> None:
    loss = Quadratic()
    loss.regularise(GradientRegulariser(coefficient=0.1))
    assert loss.head.grad is not None
    assert torch.equal(loss.head.grad, 3 * loss.head.detach())
    (_, (theta, head)) = loss.seen
    assert not torch.equal(theta, START)
    assert torch.equal(head, torch.ones(2, dtype=torch.double))
    every = Quadratic()
    every.regularise(GradientRegulariser(coefficient=0.1, exclude=()))
    torch.testing.assert_close(every.head.grad, torch.full((2,), 3 + 0.9, dtype=torch.double))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_weights_are_restored_bit_by_bit(kind: torch.dtype) -> None:
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(2)).to(kind)
    theta = weights.clone().requires_grad_()

    def backward() -> None:
        torch.autograd.backward(theta.float().pow(4).sum())

    backward()
    GradientRegulariser(step=0.37).regularise([("w", theta)], backward)
    assert torch.equal(theta, weights)


def test_a_backward_pass_that_fails_leaves_weights_and_gradients() -> None:
    loss = Quadratic()

    def fail() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="memory"):
        GradientRegulariser().regularise(loss.named(), fail)
    assert torch.equal(loss.theta, START)
    torch.testing.assert_close(loss.theta.grad, GRADIENT)


def test_degenerate_steps_are_left_and_counted() -> None:
    regulariser = GradientRegulariser()
    flat = Quadratic(0 * START)
    assert flat.regularise(regulariser).is_degenerate
    assert len(flat.seen) == 1, "no second backward pass"
    loss = Quadratic()

    def overflow() -> None:
        loss.theta.grad = torch.full_like(loss.theta, torch.inf)

    assert regulariser.regularise(loss.named(), overflow).is_degenerate
    torch.testing.assert_close(loss.theta.grad, GRADIENT)
    assert regulariser.degenerate_steps == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: GradientRegulariser(step=0.0),
        lambda: GradientRegulariser(ratio=-1.0),
        lambda: GradientRegulariser(published=True),
        lambda: GradientRegulariser(exclude="head"),
        lambda: GoldResponse(factor=1.0),
    ],
)
def test_invalid_arguments_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"step|coefficient|exclude|factor"):
        make()


def advice(action: str) -> Firing:
    return Firing("gold", "warn", None, None, None, ("exact-match", action), "")


def test_gold_advice_is_acted_on_once_until_the_cooldown_is_over() -> None:
    response = GoldResponse(cooldown=100)
    both = [advice("raise_regularisation"), advice("reset_reference"), advice("stop")]
    response(10, both)
    assert response.take() == ["raise_regularisation", "reset_reference"]
    assert response.take() == []
    response(20, both)
    assert response.take() == []
    response(110, [advice("reset_reference")])
    assert response.take() == ["reset_reference"]


def test_scaling_raises_the_ratio_or_the_coefficient_up_to_a_maximum() -> None:
    by_ratio, fixed = GradientRegulariser(ratio=0.3), GradientRegulariser(coefficient=0.1)
    for regulariser in (by_ratio, fixed):
        regulariser.scale(2.0, maximum=1.0)
    assert (by_ratio.ratio, fixed.coefficient) == (0.6, 0.2)
    by_ratio.scale(2.0, maximum=1.0)
    assert by_ratio.ratio == 1.0
    by_ratio.scale(2.0, maximum=0.5)
    assert by_ratio.ratio == 1.0, "it is never lowered"


def test_a_trainer_without_a_reference_is_named() -> None:
    with pytest.raises(ValueError, match="beta above 0"):
        copy_policy_to_reference(object())
