"""Figures of the policy's tokens: self-certainty, and the tokens of KL-Cov (arXiv 2605.22620)."""

from __future__ import annotations

import math
from typing import Any

from assay_client.advantages._arrays import like, to_list


def self_certainty_from_logits(
    logits: Any, chunk_size: int = 256, subtract_log_v: bool = True
) -> Any:
    """Return KL(U || p) of each token's distribution, in nats.

    It is `logsumexp(z) - mean(z) - log V`: 0 for a uniform distribution. The mean goes over the
    whole vocabulary, so the most probable tokens that an engine returns cannot give it. The reward
    of a rollout is the mean over its tokens.

    Args:
        logits: [..., V], a tensor of torch, or lists or an array of [T, V].
        chunk_size: tokens that are converted to single precision at once.
        subtract_log_v: False leaves `log V` in, a constant, as other code does.

    Returns:
        [...]: a tensor of single precision (double where the logits are), or a list of T numbers.

    Raises:
        ValueError: the vocabulary is empty, or `chunk_size` is not positive.
    """
    if chunk_size < 1:
        raise ValueError("chunk_size must be at least 1 token")
    if hasattr(logits, "logsumexp"):
        return _certainty_of_tensor(logits, chunk_size, subtract_log_v)
    return [_certainty_of_row(to_list(row), subtract_log_v) for row in to_list(logits)]


def kl_cov_select(logprobs: Any, advantages: Any, ratio: float = 0.02, mask: Any = None) -> Any:
    """Return the tokens whose log probability covaries most with their advantage.

    `Cov_i = (logp_i - mean logp) * (A_i - mean A)` over the batch's tokens; the top `ratio` of them
    (at least one) are selected. KL-Cov replaces their clipped objective by `-ratio_i * A_i +
    coefficient * |log ratio_i|`; the others keep it.

    Args:
        logprobs: of the tokens, of any shape as a tensor, else a list or array of one dimension.
        advantages: of the same shape.
        ratio: the share selected; the paper's 0.02 (verl's default is 0.0002).
        mask: of the same shape, true for tokens that count; all unless given.

    Returns:
        Booleans of the same shape, in the form of `logprobs`; none true if no token counts.

    Raises:
        ValueError: the shapes differ, or the ratio is not in (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ValueError("ratio must be above 0 and at most 1")
    if hasattr(logprobs, "new_tensor"):
        return _select_in_tensor(logprobs, advantages, ratio, mask)
    columns = [to_list(logprobs), to_list(advantages)]
    count = len(columns[0])
    is_counted = [True] * count if mask is None else to_list(mask)
    if len(columns[1]) != count or len(is_counted) != count:
        raise ValueError("logprobs, advantages and mask must have the same length")
    rows = [row for row in range(count) if is_counted[row]]
    selected = _top_rows(columns, rows, ratio) if rows else set()
    return like(logprobs, [row in selected for row in range(count)])


def _certainty_of_tensor(logits: Any, chunk_size: int, subtract_log_v: bool) -> Any:
    size = logits.shape[-1]
    if not size:
        raise ValueError("the vocabulary is empty")
    flat = logits.reshape(-1, size)
    kind = "double" if logits.element_size() == 8 else "float"
    shift = math.log(size) if subtract_log_v else 0.0
    values = getattr(flat.new_empty(flat.shape[0]), kind)()
    for start in range(0, flat.shape[0], chunk_size):
        chunk = getattr(flat[start : start + chunk_size], kind)()
        values[start : start + chunk_size] = chunk.logsumexp(-1) - chunk.mean(-1) - shift
    return values.reshape(logits.shape[:-1])


def _certainty_of_row(row: list[float], subtract_log_v: bool) -> float:
    if not row:
        raise ValueError("the vocabulary is empty")
    top = max(row)
    total = math.fsum(math.exp(value - top) for value in row)
    mean = math.fsum(row) / len(row)
    return top + math.log(total) - mean - (math.log(len(row)) if subtract_log_v else 0.0)


def _select_in_tensor(logprobs: Any, advantages: Any, ratio: float, mask: Any) -> Any:
    if logprobs.shape != advantages.shape or (mask is not None and mask.shape != logprobs.shape):
        raise ValueError("logprobs, advantages and mask must have the same shape")
    counted = logprobs.isnan().logical_not() if mask is None else mask.bool()
    flat = counted.reshape(-1)
    rows = flat.nonzero().reshape(-1)
    selected = flat.new_zeros(flat.shape)
    if rows.numel():
        logp, gain = (part.detach().reshape(-1)[rows].float() for part in (logprobs, advantages))
        covariance = (logp - logp.mean()) * (gain - gain.mean())
        selected[rows[covariance.topk(_selected_count(rows.numel(), ratio)).indices]] = True
    return selected.reshape(logprobs.shape)


def _top_rows(columns: list[list[float]], rows: list[int], ratio: float) -> set[int]:
    means = [math.fsum(column[row] for row in rows) / len(rows) for column in columns]
    order = sorted(
        rows, key=lambda row: -(columns[0][row] - means[0]) * (columns[1][row] - means[1])
    )
    return set(order[: _selected_count(len(rows), ratio)])


def _selected_count(count: int, ratio: float) -> int:
    return max(1, int(count * ratio))
