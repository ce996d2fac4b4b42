"""Excess surprisal in training: what `families.surprisal` serves, with a gradient, in bf16.

A prediction over the whole vocabulary is large, so it is kept once, in bf16, and each direction
reads it in one pass where the passes are fused (which takes a C++ compiler).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor


def _moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the normaliser and the entropy of each row."""
    exact = logits.float()
    normaliser = exact.logsumexp(-1)
    return normaliser, normaliser - ((exact - normaliser[:, None]).exp() * exact).sum(-1)


def _slopes(logits: Tensor, normaliser: Tensor, entropy: Tensor, given: Tensor) -> Tensor:
    """The part of the gradient that does not depend on which token came."""
    logarithms = logits.float() - normaliser[:, None]
    return (logarithms.exp() * (logarithms + entropy[:, None] + 1) * given[:, None]).bfloat16()


@cache
def _passes(fused: bool) -> tuple[Any, Any]:
    if not fused:
        return _moments, _slopes
    return torch.compile(_moments, dynamic=True), torch.compile(_slopes, dynamic=True)


class _Excess(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, embeddings: Tensor, told: Tensor, fused: bool) -> Tensor:
        logits = states.bfloat16() @ embeddings.T
        normaliser, entropy = _passes(fused)[0](logits)
        ctx.save_for_backward(logits, normaliser, entropy, embeddings, told)
        ctx.fused = fused
        excess: Tensor = normaliser - logits.gather(1, told[:, None])[:, 0].float() - entropy
        return excess

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = given
        logits, normaliser, entropy, embeddings, told = ctx.saved_tensors
        slopes = _passes(ctx.fused)[1](logits, normaliser, entropy, slope)
        slopes.scatter_add_(1, told[:, None], -slope[:, None].to(slopes.dtype))
        return (slopes @ embeddings).float(), None, None, None


def excess_surprisal(
    states: Tensor, embeddings: Tensor, told: Tensor, fused: bool = False
) -> Tensor:
    """-ln p of each token less the entropy of the prediction, in nats, shape (n,).

    Args:
        states: of the tokens before them, shape (n, width).
        embeddings: with which tokens are predicted, bf16, shape (vocabulary, width).
        told: the tokens, shape (n,).
        fused: whether to compile the passes over the predictions.
    """
    apply: Callable[..., Tensor] = _Excess.apply
    return apply(states, embeddings, told, fused)
