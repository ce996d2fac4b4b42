"""Sequences packed end to end: nothing is padded, and what several begin with is computed once.

A packed batch is one row of tokens. Attention stays within each sequence; a sequence that continues
a shared beginning attends to that beginning too, so that its numbers are those of the whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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

SHORT = 256
"""Up to so many tokens two plain matrix products are faster than the kernel that goes in blocks."""

LEAST_SHARED = 16
"""A shorter common beginning is not worth a segment of its own."""

_HARMLESS = frozenset(("dropout", "is_causal", "output_attentions", "position_ids", "use_cache"))


class CannotPack(Exception):
    """The architecture asks of attention what packed attention does not do."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of packed tokens, and the run before it that it continues (empty for most)."""

    start: int
    end: int
    shared: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one sequence lies: `shared` tokens from `begin`, the others from `rest`."""

    begin: int
    shared: int
    rest: int

    def of(self, index: int) -> int:
        """Where its token of that index is in the packed row."""
        return self.begin + index if index < self.shared else self.rest + index - self.shared

    def of_all(self, indices: Tensor) -> Tensor:
        """Where its tokens of these indices are; shape (n,), as the indices."""
        return indices + torch.where(indices < self.shared, self.begin, self.rest - self.shared)


@dataclass
class Layout:
    """One packed batch of T tokens.

    `order` tells for each packed token which sequence it is of and which of its tokens it is,
    shape (T, 2). `longest` is the longest sequence that the model may be given; a sliding window
    that is no shorter does not matter.
    """

    segments: tuple[Segment, ...]
    places: tuple[Place, ...]
    order: NDArray[np.int64]
    causal: bool
    longest: int
    device: torch.device
    _masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def mask(self, segment: Segment, dtype: torch.dtype) -> Tensor:
        """What a continuing segment sees: all of the beginning, and itself up to each token."""
        seen = segment.shared[1] - segment.shared[0]
        own = segment.end - segment.start
        if (seen, own) not in self._masks:
            hidden = torch.full((own, own), -torch.inf, dtype=dtype, device=self.device).triu(1)
            self._masks[seen, own] = nn.functional.pad(hidden, (seen, 0))
        return self._masks[seen, own]

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """For kernels that take ragged batches: cumulative lengths of queries and of keys, which
        packed token each key is, and the longest of both."""
        queries = [segment.end - segment.start for segment in self.segments]
        keys = [
            np.r_[segment.shared[0] : segment.shared[1], segment.start : segment.end]
            for segment in self.segments
        ]
        lengths = [len(one) for one in keys]
        index = torch.from_numpy(np.concatenate(keys)).to(self.device)
        ends = [
            torch.tensor([0, *np.cumsum(counts)], dtype=torch.int32, device=self.device)
            for counts in (queries, lengths)
        ]
        return ends[0], ends[1], index, max(queries), max(lengths)


def lay_out(
    inputs: Sequence[Input], causal: bool, sharing: bool, longest: int, device: torch.device
) -> Layout:
    """The layout of a batch whose payloads have `ids`."""
    places: dict[int, Place] = {}
    segments: list[Segment] = []
    runs: list[tuple[int, int, int]] = []
    end = 0
    for shared, members in shared_prefixes(inputs, sharing):
        begin = end
        if shared:
            segments.append(Segment(begin, begin + shared))
            runs.append((members[0], 0, shared))
            end += shared
        for member in members:
            own = inputs[member].tokens - shared
            continued = (begin, begin + shared) if shared else (0, 0)
            segments.append(Segment(end, end + own, continued))
            runs.append((member, shared, shared + own))
            places[member] = Place(begin if shared else end, shared, end)
            end += own
    order = np.concatenate(
        [
            np.stack([np.full(stop - start, row), np.arange(start, stop)], 1)
            for row, start, stop in runs
        ]
    )
    ordered = tuple(places[index] for index in range(len(inputs)))
    return Layout(tuple(segments), ordered, order, causal, longest, device)


def packed_tokens(inputs: Sequence[Input], sharing: bool) -> int:
    """How many tokens a packed batch of these has."""
    return sum(
        shared + sum(inputs[member].tokens - shared for member in members)
        for shared, members in shared_prefixes(inputs, sharing)
    )


def shared_prefixes(inputs: Sequence[Input], sharing: bool) -> Iterator[tuple[int, list[int]]]:
    """The inputs of each kin by index, with how many tokens all of them begin with."""
    groups: dict[object, list[int]] = {}
    for index, one in enumerate(inputs):
        groups.setdefault(one.prefix_key if sharing and one.prefix_key else index, []).append(index)
    for members in groups.values():
        related = len(members) > 1
        rows = [inputs[member].payload.ids for member in members] if related else []
        yield (common_beginning(rows) if related else 0), members


def common_beginning(rows: Sequence[Any]) -> int:
    """How many tokens all rows begin with, leaving each one of its own; 0 for only a few."""
    first = np.frombuffer(rows[0], dtype=np.intc)
    shared = min(map(len, rows)) - 1
    for row in rows[1:]:
        different = first[:shared] != np.frombuffer(row, dtype=np.intc)[:shared]
        if different.any():
            shared = int(different.argmax())
    return shared if shared >= LEAST_SHARED else 0


def register() -> None:
    """Tell Transformers of packed attention; again and again does no harm."""
    AttentionInterface.register(ATTENTION, packed_attention)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention within each segment of a packed row, as Transformers calls it.

    Args:
        module: the layer.
        query: shape (1, heads, T, width).
        key: shape (1, key heads, T, width).
        value: as key.
        attention_mask: none, the layout says it all.
        scaling: of the products; none means one over the root of the width.
        layout: of the batch.
        sliding_window: refused if shorter than the longest sequence.
        others: refused, unless known to change nothing.

    Returns:
        Shape (1, T, heads, width), and no weights.

    Raises:
        CannotPack: the architecture wants more than this.
    """
    wanted = {name for name, given in others.items() if given is not None} - _HARMLESS
    if layout is None or attention_mask is not None or wanted or others.get("dropout"):
        raise CannotPack(f"attention asks for {sorted(wanted) or 'a mask of its own'}")
    if sliding_window is not None and sliding_window < layout.longest:
        raise CannotPack(f"a sliding window of {sliding_window} tokens")
    attend = _attend_ragged if query.is_cuda else _attend_by_segment
    return attend(query, key, value, scaling, layout), None


def _attend_by_segment(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: Layout
) -> Tensor:
    attended = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    by_head = onednn_linear.outruns_attention() and query.dtype == torch.float32
    for segment in layout.segments:
        own = slice(segment.start, segment.end)
        count, continues = segment.end - segment.start, segment.shared != (0, 0)
        scaled = query[0, :, own] * scale
        keys, values = _seen(key, segment), _seen(value, segment)
        if by_head and continues:
            mask = layout.mask(segment, query.dtype)
            attended[0, own] = _attend_by_head(scaled, keys, values, mask)
        elif layout.causal or count > SHORT:
            attended[0, own] = _attend_in_blocks(scaled, keys, values, segment, layout)
        else:
            attended[0, own] = _attend_plainly(scaled, keys, values)
    return attended


def _attend_by_head(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The keys of one head are the weights of a linear layer, and so are its values: the kernels of
    `linear` are faster than those that attention has. Shapes as in `_attend_plainly`."""
    heads, count, width = query.shape
    group = heads // key.shape[0]
    # The kernel is a thousand times slower on operands that do not lie in one piece.
    keys, values = key.contiguous(), value.transpose(1, 2).contiguous()
    masks = mask.repeat(group, 1)
    attended = query.new_empty(count, heads, value.shape[2])
    for head in range(key.shape[0]):
        members = slice(head * group, (head + 1) * group)
        rows = query[members].reshape(group * count, width)
        products = onednn_linear.product(rows, keys[head], masks)
        own = onednn_linear.product(products.softmax(-1), values[head])
        attended[:, members] = own.view(group, count, -1).transpose(0, 1)
    return attended


def _attend_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, segment: Segment, layout: Layout
) -> Tensor:
    continues = segment.shared != (0, 0)
    attended = scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=layout.mask(segment, query.dtype) if continues else None,
        is_causal=layout.causal and not continues and query.shape[1] > 1,
        scale=1.0,
        enable_gqa=key.shape[0] != query.shape[0],
    )
    return attended[0].transpose(0, 1)


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Two matrix products and a softmax. The query is scaled, shape (heads, count, width); keys and
    values have shape (key heads, seen, width); the result (count, heads, width)."""
    group = query.shape[0] // key.shape[0]
    if group > 1:
        key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)
    products = torch.matmul(query, key.transpose(1, 2))
    return torch.matmul(products.softmax(-1), value).transpose(0, 1)


def _seen(states: Tensor, segment: Segment) -> Tensor:
    own = states[0, :, segment.start : segment.end]
    begin, end = segment.shared
    return torch.cat([states[0, :, begin:end], own], dim=1) if end > begin else own


def _attend_ragged(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: Layout
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # only where a GPU is

    queries, keys, index, longest_query, longest_key = layout.bounds
    attended = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        key[0].transpose(0, 1).index_select(0, index),
        value[0].transpose(0, 1).index_select(0, index),
        queries,
        keys,
        longest_query,
        longest_key,
        scale=scaling,
        window_size=(-1, 0) if layout.causal else (-1, -1),
        enable_gqa=key.shape[1] != query.shape[1],
        num_splits=1,  # more would make a sequence's numbers depend on its neighbours
    )
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0)
