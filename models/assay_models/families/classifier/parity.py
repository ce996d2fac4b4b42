"""Proof by trial: an arrangement is used only if its numbers are those of plain Transformers."""

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay_models.base import Input
from assay_models.families.classifier import packed_attention
from assay_models.families.classifier.batch_layout import (
    Alone,
    Arrangement,
    Body,
    Head,
    Packed,
    Padded,
)
from assay_models.families.classifier.onednn_linear import prepack, put_back
from assay_models.families.classifier.transformers_compat import quietly

logger = logging.getLogger(__name__)

BATCHINGS = 4
"""Random batches that bit-equality is tried on when a model is loaded."""

_PAIR = 32
"""Elements of two of the widest vectors of a CPU, in fp32."""

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
"""What an architecture that takes no packed rows or other layers may raise when it is tried."""


class NotRight(Exception):
    """The model's numbers depend on what they must not depend on; the text says on what."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What arrangements are tried on.

    `probes` are of unequal length, some of one kin. `near` is the relative tolerance for padded
    batches, and five times it the absolute one; the others must come nearer.
    """

    probes: Sequence[Input]
    near: float


def arranged(body: Body, head: Head | None, trial: Trial, deterministic: bool) -> Arrangement:
    """The fastest arrangement with the right numbers; the body's model is set up for it.

    Args:
        body: its model may get other layers and another attention.
        head: without one there is no packing.
        trial: what they are tried on.
        deterministic: whether a row must get the same bits in every batch.

    Raises:
        NotRight: a row's score changes with the padding; or its bits do with its neighbours, one
            row at a time.
    """
    padded = Padded(body)
    with torch.inference_mode():
        expected = torch.cat([padded.plain(one).float() for one in trial.probes])
        noise = _noise(padded, trial, expected)
        near = max(trial.near / 10, 4 * noise)
        found = _fastest(padded, head, trial.probes, expected, near)
        return _bit_equal(found, trial.probes) if deterministic else found


def same_bits(
    arrangement: Arrangement, probes: Sequence[Input], batchings: int, seed: int = 0
) -> bool:
    """Whether each probe's logits are the same bits alone and in random batches, in any order."""
    alone = torch.cat([arrangement.logits([one]) for one in probes])
    chance = random.Random(seed)  # noqa: S311 nothing is secret here
    for _ in range(batchings):
        order = chance.sample(range(len(probes)), len(probes))
        while order:
            size = chance.randint(1, len(order))
            batch, order = order[:size], order[size:]
            together = arrangement.logits([probes[index] for index in batch])
            if not torch.equal(together, alone[batch]):
                return False
    return True


def kernels(device: torch.device) -> tuple[str, ...]:
    """What decides the bits of a number besides the model: the library, the device, its threads."""
    if device.type == "cuda":
        return torch.__version__, torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()
    return torch.__version__, capability, f"{torch.get_num_threads()} threads"


def _noise(padded: Padded, trial: Trial, expected: Tensor) -> float:
    try:
        together = padded.logits(trial.probes).float()
    except ValueError as error:
        raise NotRight(f"cannot be computed in batches: {error}") from error
    if not torch.allclose(together, expected, rtol=trial.near, atol=5 * trial.near):
        raise NotRight(f"{type(padded.body.model).__name__} scores change with padding")
    return float((together - expected).abs().max())


def _fastest(
    padded: Padded, head: Head | None, probes: Sequence[Input], expected: Tensor, near: float
) -> Padded | Packed:
    body = padded.body
    replaced = prepack(body.model.base_model)
    if replaced and not _agrees(padded, probes, expected, near):
        put_back(body.model.base_model, replaced)
    attention = body.model.config._attn_implementation
    packed = None if head is None else _packed(body, head)
    if packed is not None and _agrees(packed, probes, expected, near):
        return packed
    body.model.set_attn_implementation(attention)
    logger.info("%s is computed in padded batches", type(body.model).__name__)
    return padded


def _bit_equal(found: Padded | Packed, probes: Sequence[Input]) -> Packed | Alone:
    candidates: list[Packed | Alone] = [Alone(found)]
    if isinstance(found, Packed):
        alike = Packed(found.body, found.head, found.causal, sharing=False, by_row=True)
        candidates = [alike, Alone(alike)] if _without_tails(found.body) else [Alone(alike)]
    for candidate in candidates:
        if same_bits(candidate, probes, BATCHINGS):
            return candidate
    device = found.body.device
    raise NotRight(f"not deterministic on {device}: a row's bits change even one row at a time")


def _without_tails(body: Body) -> bool:
    """Whether no element of a packed batch can be the odd one out of a vector kernel.

    Kernels cut a tensor into a share for each thread and a share into pairs of vectors, and compute
    what is left over by another formula, whose last bit may differ. Where the widths are multiples
    of a pair for every number of threads, nothing is ever left over. Matrix kernels of a GPU change
    with the size of the batch.
    """
    if body.device.type != "cpu":
        return False
    pair = _PAIR * math.lcm(*range(1, torch.get_num_threads() + 1))
    config = body.model.config.get_text_config()
    widths = [config.hidden_size, getattr(config, "intermediate_size", None) or pair]
    if any("Rotary" in type(module).__name__ for module in body.model.modules()):
        own = getattr(config, "head_dim", None)
        widths.append(own or config.hidden_size // config.num_attention_heads)
    return all(width % pair == 0 for width in widths)


def _packed(body: Body, head: Head) -> Packed | None:
    model = body.model
    packed_attention.register()
    causal = any(getattr(module, "is_causal", False) for module in model.base_model.modules())
    try:
        with quietly():
            model.set_attn_implementation(packed_attention.ATTENTION)
    except _UNFIT:
        return None
    if model.config._attn_implementation != packed_attention.ATTENTION:
        return None
    return Packed(body, head, causal, sharing=causal)


def _agrees(
    arrangement: Arrangement, probes: Sequence[Input], expected: Tensor, near: float
) -> bool:
    try:
        found = arrangement.logits(probes)
    except _UNFIT as error:
        logger.debug("%s rows: %s", arrangement.name, error)
        return False
    return torch.allclose(found.float(), expected, rtol=near, atol=near)
