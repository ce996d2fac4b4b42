"""Linear layers whose weights are laid out once for the CPU's matrix kernels.

oneDNN multiplies weights that it has reordered beforehand; PyTorch's own `nn.Linear` hands fp32
weights to another library as they are. The operators are those that PyTorch's compiler emits.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn

_DTYPES = (torch.float32, torch.bfloat16)


After = Literal["none", "gelu", "swish"]
"""What is done to a product in the same pass: nothing, the exact GELU (Hendrycks and Gimpel 2016,
arXiv 1606.08415) or SiLU, x times its sigmoid."""


class PrepackedLinear(nn.Module):
    """`nn.Linear` for inference on a CPU: x (..., in) to (..., out), in x's dtype; what comes
    `after` it is computed in the same pass.
    """

    def __init__(self, linear: nn.Linear, after: After = "none") -> None:
        super().__init__()
        self.after = after
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """The rows of `x` times the weight, plus the bias, and what comes after."""
        form = "none" if self.after == "gelu" else ""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, self.after, [], form
        )
        return product

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """The rows of `x` times the weight, plus the bias, each element times the one of `other`,
        shape (..., out)."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            x, other, self.weight, self.bias, "mul"
        )
        return product


class PrepackedGate(nn.Module):
    """A SwiGLU layer (Shazeer 2020, arXiv 2002.05202) for inference on a CPU: x (..., width) to
    (..., width), the gate's SiLU and the product with it in the passes of the linear layers.
    """

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.gate_proj = PrepackedLinear(mlp.gate_proj, "swish")
        self.up_proj = PrepackedLinear(mlp.up_proj)
        self.down_proj = PrepackedLinear(mlp.down_proj)

    def forward(self, x: Tensor) -> Tensor:
        """Down of the gate's SiLU times up."""
        down: Tensor = self.down_proj(self.up_proj.times(x, self.gate_proj(x)))
        return down


def product(rows: Tensor, weight: Tensor, added: Tensor | None = None) -> Tensor:
    """A layer used once: `rows` (n, in) times `weight` (out, in), plus `added` (n, out). All of
    them must be contiguous.
    """
    if added is None:
        plain: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
        return plain
    summed: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, added, weight, None, "add")
    return summed


def available() -> bool:
    """Whether this build of PyTorch has the operators."""
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def outruns_attention() -> bool:
    """Whether these kernels are faster than those of PyTorch's attention: by half with AVX-512, not
    at all with AVX2."""
    return available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def prepack(body: nn.Module) -> dict[str, nn.Module]:
    """Put prepacked layers in place of the linear ones, each with the activation that is known to
    follow; what they replaced, by name.

    A pooler is left: it is part of the head, and reads few rows. Nothing is replaced where the
    operators are not: on another device, or for another dtype.
    """
    if not available():
        return {}
    gates = {name: module for name, module in body.named_modules() if _is_gate(module)}
    inside = tuple(f"{name}." for name in gates)
    linears = {
        name: module
        for name, module in body.named_modules()
        if _fits(module) and not name.startswith(("pooler.", *inside))
    }
    followed = {
        name: module.intermediate_act_fn
        for name, module in body.named_modules()
        if f"{name}.dense" in linears and _is_gelu(getattr(module, "intermediate_act_fn", None))
    }
    for name, gate in gates.items():
        body.set_submodule(name, PrepackedGate(gate))
    for name, linear in linears.items():
        after: After = "gelu" if name.removesuffix(".dense") in followed else "none"
        body.set_submodule(name, PrepackedLinear(linear, after))
    activations = {f"{name}.intermediate_act_fn": act for name, act in followed.items()}
    put_back(body, dict.fromkeys(activations, nn.Identity()))
    return {**gates, **linears, **activations}


def put_back(body: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Set submodules by their dotted names."""
    for name, layer in layers.items():
        body.set_submodule(name, layer)


def _is_gelu(module: object) -> bool:
    return type(module).__name__ == "GELUActivation"


def _is_gate(module: nn.Module) -> bool:
    layers = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    silu = type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")
    return silu and len(list(module.children())) == len(layers) + 1 and all(map(_fits, layers))


def _fits(module: object) -> TypeGuard[nn.Linear]:
    if type(module) is not nn.Linear:
        return False
    return module.weight.device.type == "cpu" and module.weight.dtype in _DTYPES
