"""Sequences packed end to end: nothing is padded, and a common beginning is computed once.

A packed batch is one row of tokens. Attention stays within each sequence. A sequence that continues
a shared prefix attends to that prefix too, so that its numbers are those of the whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from assay_models.base import Input
from assay_models.families.classifier import onednn_linear

ATTENTION = "assay_packed"
"""The name under which Transformers knows `packed_attention`."""

MAX_PLAIN_TOKENS = 256
"""The length up to which two plain matrix products are faster than the kernel that works in
blocks."""

MIN_SHARED_TOKENS = 16
"""The shortest common beginning that is worth a segment of its own."""

_HARMLESS = frozenset(("dropout", "is_causal", "output_attentions", "position_ids", "use_cache"))


class CannotPack(Exception):
    """The architecture asks of attention what packed attention does not do."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of packed tokens, and the run before it that it continues (empty for most)."""

    start: int
    end: int
    prefix: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class PackedSequence:
    """The place of one sequence in the packed row: its first `prefix_tokens` start at
    `prefix_start`, the others at `own_start`."""

    prefix_start: int
    prefix_tokens: int
    own_start: int

    def position(self, index: int) -> int:
        """Return the position in the packed row of the token with that index in the sequence."""
        if index < self.prefix_tokens:
            return self.prefix_start + index
        return self.own_start + index - self.prefix_tokens

    def positions(self, indices: Tensor) -> Tensor:
        """Return the positions of several tokens; shape (n,), as the indices."""
        own_offset = self.own_start - self.prefix_tokens
        return indices + torch.where(indices < self.prefix_tokens, self.prefix_start, own_offset)


@dataclass
class PackedBatch:
    """One packed batch of T tokens.

    `token_order` holds for each packed token the index of its sequence and its index in that
    sequence, shape (T, 2). `max_tokens` is the longest sequence that the model may be given; a
    sliding window that is no shorter does not matter.
    """

    segments: tuple[Segment, ...]
    sequences: tuple[PackedSequence, ...]
    _: KW_ONLY
    token_order: NDArray[np.int64]
    is_causal: bool
    max_tokens: int
    device: torch.device
    _masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def mask(self, segment: Segment, dtype: torch.dtype) -> Tensor:
        """Return the mask of a continuing segment: it sees all of the prefix, and itself up to each
        token."""
        seen = segment.prefix[1] - segment.prefix[0]
        own = segment.end - segment.start
        if (seen, own) not in self._masks:
            hidden = torch.full((own, own), -torch.inf, dtype=dtype, device=self.device).triu(1)
            self._masks[seen, own] = nn.functional.pad(hidden, (seen, 0))
        return self._masks[seen, own]

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """Cumulative lengths of queries and of keys, the packed token of each key, and the longest
        of both, for kernels that take ragged batches."""
        queries = [segment.end - segment.start for segment in self.segments]
        keys = [
            np.r_[segment.prefix[0] : segment.prefix[1], segment.start : segment.end]
            for segment in self.segments
        ]
        lengths = [len(positions) for positions in keys]
        index = torch.from_numpy(np.concatenate(keys)).to(self.device)
        ends = [
            torch.tensor([0, *np.cumsum(counts)], dtype=torch.int32, device=self.device)
            for counts in (queries, lengths)
        ]
        return ends[0], ends[1], index, max(queries), max(lengths)


def pack(
    inputs: Sequence[Input],
    device: torch.device,
    *,
    is_causal: bool,
    shares_prefixes: bool,
    max_tokens: int,
) -> PackedBatch:
    """Pack a batch whose payloads have `ids`."""
    sequences: dict[int, PackedSequence] = {}
    segments: list[Segment] = []
    runs: list[tuple[int, int, int]] = []
    end = 0
    for shared, members in shared_prefixes(inputs, shares_prefixes):
        begin = end
        if shared:
            segments.append(Segment(begin, begin + shared))
            runs.append((members[0], 0, shared))
            end += shared
        for member in members:
            own = inputs[member].tokens - shared
            prefix = (begin, begin + shared) if shared else (0, 0)
            segments.append(Segment(end, end + own, prefix))
            runs.append((member, shared, shared + own))
            sequences[member] = PackedSequence(begin if shared else end, shared, end)
            end += own
    return PackedBatch(
        tuple(segments),
        tuple(sequences[index] for index in range(len(inputs))),
        token_order=_token_order(runs),
        is_causal=is_causal,
        max_tokens=max_tokens,
        device=device,
    )


def _token_order(runs: Sequence[tuple[int, int, int]]) -> NDArray[np.int64]:
    return np.concatenate(
        [
            np.stack([np.full(stop - start, row), np.arange(start, stop)], 1)
            for row, start, stop in runs
        ]
    )


def packed_tokens(inputs: Sequence[Input], shares_prefixes: bool) -> int:
    """Return the number of tokens in a packed batch of these inputs."""
    return sum(
        shared + sum(inputs[member].tokens - shared for member in members)
        for shared, members in shared_prefixes(inputs, shares_prefixes)
    )


def shared_prefixes(
    inputs: Sequence[Input], shares_prefixes: bool
) -> Iterator[tuple[int, list[int]]]:
    """Yield the number of tokens that inputs with one prefix key begin with, and their indices."""
    groups: dict[object, list[int]] = {}
    for index, row in enumerate(inputs):
        key = row.prefix_key if shares_prefixes and row.prefix_key else index
        groups.setdefault(key, []).append(index)
    for members in groups.values():
        if len(members) == 1:
            yield 0, members
        else:
            yield common_prefix([inputs[member].payload.ids for member in members]), members


def common_prefix(rows: Sequence[Any]) -> int:
    """Return the number of tokens that all rows begin with, or 0 if they are only a few.

    Each row keeps at least one token of its own.
    """
    first = np.frombuffer(rows[0], dtype=np.intc)
    shared = min(map(len, rows)) - 1
    for row in rows[1:]:
        different = first[:shared] != np.frombuffer(row, dtype=np.intc)[:shared]
        if different.any():
            shared = int(different.argmax())
    return shared if shared >= MIN_SHARED_TOKENS else 0


def register() -> None:
    """Register packed attention with Transformers. Repeated calls are harmless."""
    AttentionInterface.register(ATTENTION, packed_attention)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packed_batch: PackedBatch | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute attention within each segment of a packed row. Transformers calls it.

    Args:
        module: the layer.
        query: shape (1, heads, T, width).
        key: shape (1, key heads, T, width).
        value: as key.
        attention_mask: refused; `packed_batch` holds all that is needed.
        scaling: of the products; by default one over the root of the width.
        packed_batch: the batch and its segments.
        sliding_window: refused if shorter than the longest sequence.
        others: refused, unless known to change nothing.

    Returns:
        Shape (1, T, heads, width), and no weights.

    Raises:
        CannotPack: the architecture wants more than this.
    """
    wanted = {name for name, given in others.items() if given is not None} - _HARMLESS
    if packed_batch is None or attention_mask is not None or wanted or others.get("dropout"):
        raise CannotPack(f"attention asks for {sorted(wanted) or 'a mask of its own'}")
    if sliding_window is not None and sliding_window < packed_batch.max_tokens:
        raise CannotPack(f"a sliding window of {sliding_window} tokens")
    attend = _attend_ragged if query.is_cuda else _attend_by_segment
    return attend(query, key, value, scaling=scaling, packed=packed_batch), None


def _attend_by_segment(
    query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None, packed: PackedBatch
) -> Tensor:
    attended = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    by_head = onednn_linear.is_faster_than_attention() and query.dtype == torch.float32
    for segment in packed.segments:
        own = slice(segment.start, segment.end)
        count, continues = segment.end - segment.start, segment.prefix != (0, 0)
        scaled = query[0, :, own] * scale
        keys, values = _seen(key, segment), _seen(value, segment)
        if by_head and continues:
            mask = packed.mask(segment, query.dtype)
            attended[0, own] = _attend_by_head(scaled, keys, values, mask)
        elif packed.is_causal or count > MAX_PLAIN_TOKENS:
            attended[0, own] = _attend_in_blocks(
                scaled, keys, values, segment=segment, packed=packed
            )
        else:
            attended[0, own] = _attend_plainly(scaled, keys, values)
    return attended


def _attend_by_head(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attend with the kernels of linear layers, which are faster than those of attention.

    The keys of one head are the weights of a linear layer, and so are its values. Shapes as in
    `_attend_plainly`.
    """
    heads, count, width = query.shape
    group = heads // key.shape[0]
    # The kernel is a thousand times slower on operands that do not lie in one piece.
    keys, values = key.contiguous(), value.transpose(1, 2).contiguous()
    masks = mask.repeat(group, 1)
    attended = query.new_empty(count, heads, value.shape[2])
    for head in range(key.shape[0]):
        members = slice(head * group, (head + 1) * group)
        rows = query[members].reshape(group * count, width)
        products = onednn_linear.apply_linear(rows, keys[head], masks)
        own = onednn_linear.apply_linear(products.softmax(-1), values[head])
        attended[:, members] = own.view(group, count, -1).transpose(0, 1)
    return attended


def _attend_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, *, segment: Segment, packed: PackedBatch
) -> Tensor:
    continues = segment.prefix != (0, 0)
    attended = scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=packed.mask(segment, query.dtype) if continues else None,
        is_causal=packed.is_causal and not continues and query.shape[1] > 1,
        scale=1.0,
        enable_gqa=key.shape[0] != query.shape[0],
    )
    return attended[0].transpose(0, 1)


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend by two matrix products and a softmax.

    The query is scaled, shape (heads, count, width); keys and values have shape (key heads, seen,
    width); the result (count, heads, width).
    """
    group = query.shape[0] // key.shape[0]
    if group > 1:
        key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)
    products = torch.matmul(query, key.transpose(1, 2))
    return torch.matmul(products.softmax(-1), value).transpose(0, 1)


def _seen(states: Tensor, segment: Segment) -> Tensor:
    own = states[0, :, segment.start : segment.end]
    begin, end = segment.prefix
    return torch.cat([states[0, :, begin:end], own], dim=1) if end > begin else own


def _attend_ragged(
    query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None, packed: PackedBatch
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # only where a GPU is

    queries, keys, index, longest_query, longest_key = packed.bounds
    attended = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        key[0].transpose(0, 1).index_select(0, index),
        value[0].transpose(0, 1).index_select(0, index),
        queries,
        keys,
        longest_query,
        longest_key,
        scale=scaling,
        window_size=(-1, 0) if packed.is_causal else (-1, -1),
        enable_gqa=key.shape[1] != query.shape[1],
        num_splits=1,  # more would make a sequence's numbers depend on the rest of the batch
    )
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0)
