"""The check of the device that a model is loaded onto, and of the precision of its products."""

from collections.abc import Mapping

import torch

from assay_models.card import CardError, ModelCard


def usable_device(card: ModelCard, name: str) -> torch.device:
    """Return the device of that name.

    Raises:
        CardError: it is a CUDA device that PyTorch does not find.
    """
    device = torch.device(name)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    if count == 0:
        is_built = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
        build = "" if is_built else " and is built without CUDA"
        raise CardError(
            f"{card.id}: ASSAY_DEVICE is {name}, but PyTorch finds no CUDA device{build}: "
            "set ASSAY_DEVICE=cpu, or install a PyTorch and a driver for the device"
        )
    if device.index is not None and device.index >= count:
        raise CardError(
            f"{card.id}: ASSAY_DEVICE is {name}, but the last CUDA device is cuda:{count - 1}"
        )
    return device


def free_bytes(name: str) -> int:
    """Return the bytes of a CUDA device that a new model may use.

    Those that PyTorch keeps without using them count as free.
    """
    device = torch.device(name)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def release_memory() -> None:
    """Return the memory of CUDA devices that PyTorch keeps without using it."""
    torch.cuda.empty_cache()


_PRECISION_VARIABLES = (
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


def reduced_precision(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what makes matrix products less exact than their dtype, by name: PyTorch's setting,
    and the variables that its libraries read. By default there is nothing.

    Args:
        environment: the environment of the process.
    """
    found = {name: environment[name] for name in _PRECISION_VARIABLES if name in environment}
    precision = torch.get_float32_matmul_precision()
    return found if precision == "highest" else {**found, "float32_matmul": precision}
