"""Excess surprisal in training: the quantity of `families.classifier.surprisal`, with a gradient.

It is computed in bf16. A prediction over the whole vocabulary is large, so it is kept once, in
bf16, and each direction reads it in one pass where the passes are fused (which takes a C++
compiler).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor


def _normaliser_and_entropy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the normaliser and the entropy of each row."""
    exact = logits.float()
    normaliser = exact.logsumexp(-1)
    return normaliser, normaliser - ((exact - normaliser[:, None]).exp() * exact).sum(-1)


def _token_independent_gradient(
    logits: Tensor, normaliser: Tensor, entropy: Tensor, upstream: Tensor
) -> Tensor:
    """Return the part of the gradient that does not depend on the observed token."""
    log_probabilities = logits.float() - normaliser[:, None]
    entropy_term = log_probabilities + entropy[:, None] + 1
    return (log_probabilities.exp() * entropy_term * upstream[:, None]).bfloat16()


@cache
def _passes(fused: bool) -> tuple[Any, Any]:
    if not fused:
        return _normaliser_and_entropy, _token_independent_gradient
    return (
        torch.compile(_normaliser_and_entropy, dynamic=True),
        torch.compile(_token_independent_gradient, dynamic=True),
    )


class _ExcessSurprisal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, embeddings: Tensor, tokens: Tensor, fused: bool
    ) -> Tensor:
        logits = states.bfloat16() @ embeddings.T
        normaliser, entropy = _passes(fused)[0](logits)
        ctx.save_for_backward(logits, normaliser, entropy, embeddings, tokens)
        ctx.fused = fused
        excess: Tensor = normaliser - logits.gather(1, tokens[:, None])[:, 0].float() - entropy
        return excess

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = upstream
        logits, normaliser, entropy, embeddings, tokens = ctx.saved_tensors
        slopes = _passes(ctx.fused)[1](logits, normaliser, entropy, gradient)
        slopes.scatter_add_(1, tokens[:, None], -gradient[:, None].to(slopes.dtype))
        return (slopes @ embeddings).float(), None, None, None


def excess_surprisal(
    states: Tensor, embeddings: Tensor, tokens: Tensor, fused: bool = False
) -> Tensor:
    """Return -ln p of each token less the entropy of the prediction, in nats, shape (n,).

    Args:
        states: of the tokens before them, shape (n, width).
        embeddings: with which tokens are predicted, bf16, shape (vocabulary, width).
        tokens: the observed tokens, shape (n,).
        fused: whether to compile the passes over the predictions.
    """
    apply: Callable[..., Tensor] = _ExcessSurprisal.apply
    return apply(states, embeddings, tokens, fused)
