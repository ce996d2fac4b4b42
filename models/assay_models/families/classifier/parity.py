"""Proof by trial: a layout is used only if its numbers are those of plain Transformers."""

import logging
import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay_models.base import Input
from assay_models.families.classifier import packed_attention
from assay_models.families.classifier.batch_layout import (
    BatchLayout,
    Body,
    Head,
    PackedLayout,
    PaddedLayout,
    SingleRowLayout,
)
from assay_models.families.classifier.device import reduced_precision
from assay_models.families.classifier.onednn_linear import prepack, set_layers
from assay_models.families.classifier.transformers_compat import silence_transformers

logger = logging.getLogger(__name__)

RANDOM_BATCHINGS = 4
"""The random batchings that bit-equality is tested on when a model is loaded."""

_VECTOR_PAIR_ELEMENTS = 32
"""The elements of two of the widest vectors of a CPU, in fp32."""

_UNFIT = (
    packed_attention.CannotPack,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""The exceptions that an architecture may raise that takes no packed rows or other layers."""


_NOT_FINITE = "set ASSAY_DTYPE=float32; if that is set, the weights are damaged"


class ParityError(Exception):
    """The model's numbers depend on what they must not depend on; the text says on what."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The rows that layouts are tested on, and the tolerance.

    `probes` are of unequal length, some with one prefix key. `tolerance` is the relative tolerance
    for padded batches, and five times it the absolute one; the other layouts must come nearer.
    """

    probes: Sequence[Input]
    tolerance: float


def choose_layout(
    body: Body, head: Head | None, trial: Trial, *, deterministic: bool
) -> BatchLayout:
    """Return the fastest layout with the right numbers, with the body's model set up for it.

    Args:
        body: its model may get other layers and another attention.
        head: without one there is no packing.
        trial: the rows that layouts are tested on.
        deterministic: whether a row must get the same bits in every batch.

    Raises:
        ParityError: a row's score is not finite, or changes with the padding; or its bits change
            with the rest of the batch, even one row at a time.
    """
    padded = PaddedLayout(body)
    with torch.inference_mode():
        expected = torch.cat([padded.reference_logits(row).float() for row in trial.probes])
        if not expected.isfinite().all():
            raise ParityError(f"scores are not finite numbers in {body.model.dtype}: {_NOT_FINITE}")
        noise = _padding_noise(padded, trial, expected)
        tolerance = max(trial.tolerance / 10, 4 * noise)
        layout = _fastest(padded, head, Trial(trial.probes, tolerance), expected)
        return _bit_equal(layout, trial.probes) if deterministic else layout


def is_bit_equal(
    layout: BatchLayout, probes: Sequence[Input], batchings: int, seed: int = 0
) -> bool:
    """Return whether each probe's logits have the same bits alone and in random batches, in any
    order."""
    alone = torch.cat([layout.logits([row]) for row in probes])
    chance = random.Random(seed)  # noqa: S311 nothing is secret here
    for _ in range(batchings):
        order = chance.sample(range(len(probes)), len(probes))
        while order:
            size = chance.randint(1, len(order))
            batch, order = order[:size], order[size:]
            together = layout.logits([probes[index] for index in batch])
            if not torch.equal(together, alone[batch]):
                return False
    return True


def numeric_environment(device: torch.device) -> tuple[str, ...]:
    """Return what decides the bits of a number besides the model: library, device, threads, and
    reduced precision."""
    reduced = tuple(map("=".join, reduced_precision(os.environ).items()))
    if device.type == "cuda":
        return torch.__version__, torch.cuda.get_device_name(device), *reduced
    capability = torch.backends.cpu.get_cpu_capability()
    return torch.__version__, capability, f"{torch.get_num_threads()} threads", *reduced


def _padding_noise(padded: PaddedLayout, trial: Trial, expected: Tensor) -> float:
    try:
        together = padded.logits(trial.probes).float()
    except ValueError as error:
        raise ParityError(f"cannot be computed in batches: {error}") from error
    if not torch.allclose(together, expected, rtol=trial.tolerance, atol=5 * trial.tolerance):
        raise ParityError(f"{type(padded.body.model).__name__} scores change with padding")
    return float((together - expected).abs().max())


def _fastest(
    padded: PaddedLayout, head: Head | None, trial: Trial, expected: Tensor
) -> PaddedLayout | PackedLayout:
    body = padded.body
    replaced = prepack(body.model.base_model)
    if replaced and not _matches(padded, trial, expected):
        set_layers(body.model.base_model, replaced)
    attention = body.model.config._attn_implementation
    packed = None if head is None else _packed(body, head)
    if packed is not None and _matches(packed, trial, expected):
        return packed
    body.model.set_attn_implementation(attention)
    logger.info("%s is computed in padded batches", type(body.model).__name__)
    return padded


def _bit_equal(
    layout: PaddedLayout | PackedLayout, probes: Sequence[Input]
) -> PackedLayout | SingleRowLayout:
    candidates: list[PackedLayout | SingleRowLayout] = [SingleRowLayout(layout)]
    if isinstance(layout, PackedLayout):
        row_wise = PackedLayout(
            layout.body,
            layout.head,
            is_causal=layout.is_causal,
            shares_prefixes=False,
            is_row_wise=True,
        )
        candidates = [SingleRowLayout(row_wise)]
        if _has_no_vector_tails(layout.body):
            candidates.insert(0, row_wise)
    for candidate in candidates:
        if is_bit_equal(candidate, probes, RANDOM_BATCHINGS):
            return candidate
    device = layout.body.device
    raise ParityError(f"not deterministic on {device}: a row's bits change even one row at a time")


def _has_no_vector_tails(body: Body) -> bool:
    """Return whether no element of a packed batch can be left over by a vector kernel.

    Kernels cut a tensor into a share for each thread and a share into pairs of vectors, and compute
    what is left over by another formula, whose last bit may differ. Where the widths are multiples
    of a pair for every number of threads, nothing is ever left over. Matrix kernels of a GPU change
    with the size of the batch.
    """
    if body.device.type != "cpu":
        return False
    pair = _VECTOR_PAIR_ELEMENTS * math.lcm(*range(1, torch.get_num_threads() + 1))
    config = body.model.config.get_text_config()
    widths = [config.hidden_size, getattr(config, "intermediate_size", None) or pair]
    if any("Rotary" in type(module).__name__ for module in body.model.modules()):
        own = getattr(config, "head_dim", None)
        widths.append(own or config.hidden_size // config.num_attention_heads)
    return all(width % pair == 0 for width in widths)


def _packed(body: Body, head: Head) -> PackedLayout | None:
    model = body.model
    packed_attention.register()
    is_causal = any(getattr(module, "is_causal", False) for module in model.base_model.modules())
    try:
        with silence_transformers():
            model.set_attn_implementation(packed_attention.ATTENTION)
    except _UNFIT:
        return None
    if model.config._attn_implementation != packed_attention.ATTENTION:
        return None
    return PackedLayout(body, head, is_causal=is_causal, shares_prefixes=is_causal)


def _matches(layout: BatchLayout, trial: Trial, expected: Tensor) -> bool:
    try:
        logits = layout.logits(trial.probes)
    except _UNFIT as error:
        logger.debug("%s rows: %s", layout.name, error)
        return False
    return torch.allclose(logits.float(), expected, rtol=trial.tolerance, atol=trial.tolerance)
