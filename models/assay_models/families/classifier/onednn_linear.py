"""Linear layers whose weights are laid out once for the CPU's matrix kernels.

oneDNN multiplies weights that it has reordered beforehand. PyTorch's own `nn.Linear` hands fp32
weights to another library as they are. The operators are those that PyTorch's compiler emits.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class PrepackedLinear(nn.Module):
    """`nn.Linear` for inference on a CPU: x (..., in) to (..., out), in x's dtype.

    With `gelu` the exact GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415) is computed in the same
    pass.
    """

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self.gelu = gelu
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Return the rows of `x` times the weight, plus the bias."""
        after, form = ("gelu", "none") if self.gelu else ("none", "")
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, after, [], form
        )
        return outputs


def prepacked(layer: nn.Linear) -> nn.Module:
    """Return the layer with its weights laid out, or the layer itself where the operators are
    missing."""
    return PrepackedLinear(layer) if is_available() and _fits(layer.weight) else layer


def apply_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a layer that is used once: `rows` (n, in) times `weight` (out, in), plus `bias` (n,
    out).

    All of them must be contiguous.
    """
    if bias is None:
        plain: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
        return plain
    summed: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, bias, weight, None, "add")
    return summed


def is_available() -> bool:
    """Return whether this build of PyTorch has the operators."""
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_faster_than_attention() -> bool:
    """Return whether these kernels are faster than those of PyTorch's attention: by half with
    AVX-512, not at all with AVX2."""
    return is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def prepack(body: nn.Module) -> dict[str, nn.Module]:
    """Put prepacked layers in place of the linear ones, each with the GELU that is known to follow.

    A pooler is left as it is: it is part of the head, and reads few rows. Nothing is replaced where
    the operators are missing: on another device, or for another dtype.

    Returns:
        The replaced layers, by name.
    """
    if not is_available():
        return {}
    linears = {
        name: module
        for name, module in body.named_modules()
        if type(module) is nn.Linear and _fits(module.weight) and not name.startswith("pooler.")
    }
    followed = {
        name: module.intermediate_act_fn
        for name, module in body.named_modules()
        if f"{name}.dense" in linears and _is_gelu(getattr(module, "intermediate_act_fn", None))
    }
    for name, linear in linears.items():
        gelu = name.removesuffix(".dense") in followed
        body.set_submodule(name, PrepackedLinear(linear, gelu))
    activations = {f"{name}.intermediate_act_fn": act for name, act in followed.items()}
    set_layers(body, dict.fromkeys(activations, nn.Identity()))
    return {**linears, **activations}


def set_layers(body: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Set submodules by their dotted names."""
    for name, layer in layers.items():
        body.set_submodule(name, layer)


def _is_gelu(module: object) -> bool:
    return type(module).__name__ == "GELUActivation"


def _fits(weight: Tensor) -> bool:
    if weight.device.type != "cpu":
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
