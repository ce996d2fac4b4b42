"""Self-certainty against torch's own divergence, and the tokens of KL-Cov."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from assay_client.advantages import kl_cov_select, self_certainty_from_logits


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    return 3 * torch.randn(1, 1000, generator=torch.Generator().manual_seed(5))


def divergence(logits: torch.Tensor) -> float:
    """Return KL(U || p), computed by torch."""
    uniform = torch.full_like(logits, 1 / logits.shape[-1])
    return torch.nn.functional.kl_div(logits.log_softmax(-1), uniform, reduction="sum").item()


def test_self_certainty_is_the_divergence_of_the_uniform_distribution(logits: torch.Tensor) -> None:
    assert self_certainty_from_logits(logits).item() == pytest.approx(divergence(logits), abs=1e-4)
    with_constant = self_certainty_from_logits(logits, subtract_log_v=False).item()
    assert with_constant - divergence(logits) == pytest.approx(math.log(1000), abs=1e-4)
    assert self_certainty_from_logits(torch.zeros(2, 1000)).tolist() == pytest.approx([0, 0])


def test_the_most_probable_tokens_do_not_give_self_certainty(logits: torch.Tensor) -> None:
    best = logits.log_softmax(-1).topk(20).values
    reconstructed = self_certainty_from_logits(best).item()
    assert reconstructed < divergence(logits) / 2


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_change_nothing(chunk_size: int) -> None:
    logits = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(1))
    whole = self_certainty_from_logits(logits)
    assert whole.shape == (2, 5)
    assert torch.equal(self_certainty_from_logits(logits, chunk_size=chunk_size), whole)
    half = self_certainty_from_logits(logits.bfloat16())
    assert half.dtype == torch.float32
    assert half.flatten().tolist() == pytest.approx(whole.flatten().tolist(), abs=0.02)
    for other in (logits[0].tolist(), logits[0].numpy()):
        assert self_certainty_from_logits(other) == pytest.approx(whole[0].tolist(), abs=1e-5)


@pytest.mark.parametrize("make", [torch.tensor, np.array, list])
def test_kl_cov_selects_the_tokens_of_highest_covariance(make: Any) -> None:
    logprobs = [-0.1, -5.0, -0.2, -4.0, -0.1]
    advantages = [2.0, -2.0, -1.0, 0.5, 9.0]
    selected = kl_cov_select(make(logprobs), make(advantages), ratio=0.4, mask=None)
    assert list(selected) == [False, True, False, False, True]
    mask = make([True, True, True, True, False])
    masked = kl_cov_select(make(logprobs), make(advantages), ratio=0.02, mask=mask)
    assert list(masked) == [False, True, False, False, False]
    assert not any(kl_cov_select(make(logprobs), make(advantages), mask=make([False] * 5)))


@pytest.mark.parametrize("ratio", [0.0, 1.1])
def test_kl_cov_refuses_a_share_that_is_none(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        kl_cov_select([0.0], [0.0], ratio=ratio)


def test_arguments_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="same"):
        kl_cov_select([0.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="same"):
        kl_cov_select(torch.zeros(1), torch.zeros(2))
    with pytest.raises(ValueError, match="chunk_size"):
        self_certainty_from_logits([[0.0]], chunk_size=0)
    empties: list[Any] = [[[]], torch.zeros(1, 0)]
    for empty in empties:
        with pytest.raises(ValueError, match="empty"):
            self_certainty_from_logits(empty)
