"""Checks of a checkpoint's files and weights, with reasons that say what to do."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from assay_models.families.classifier.load_errors import CheckpointFault
from assay_models.families.classifier.transformers_compat import open_unmapped
from assay_models.repository import missing_weights, weight_names

_LFS_POINTER = b"version https://git-lfs"


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file into memory of this process's own.

    A mapped file would change the tensors when it is written to, and kill the process when it is
    cut.

    Raises:
        OSError: the file cannot be opened.
        SafetensorError: it is no complete safetensors file.
    """
    with open_unmapped(path) as file:
        return {name: file.get_tensor(name) for name in file.offset_keys()}


def stored_types(folder: Path) -> dict[str, str]:
    """Return the type of each tensor in a folder's safetensors files, as these name it (`F32`).

    Raises:
        CheckpointFault: a file is missing, incomplete, no safetensors, or a pointer to another.
        ValueError: an index of shards does not name them.
    """
    missing = missing_weights(folder)
    if missing is not None:
        raise CheckpointFault(missing + _remedy(folder))
    if not (folder / "config.json").is_file():
        raise CheckpointFault(
            f"no config.json in {folder}: copy it from where the weights are from"
        )
    return {
        name: kind
        for path in weight_names(folder)
        for name, kind in _types_in(folder / path).items()
    }


def refuse_integers(model: Any, types: Mapping[str, str]) -> None:
    """Refuse integers in the place of weights: without their scales they are other numbers.

    Raises:
        CheckpointFault: a parameter of the model is stored as integers or booleans.
    """
    parameters = {name for name, _ in model.named_parameters()}
    names = [name for name, kind in types.items() if kind[0] in "BIU" and kind != "BF16"]
    if wrong := parameters.intersection(names):
        first = min(wrong)
        raise CheckpointFault(
            f"integers ({types[first]}) are stored for {summary(wrong)}: save the weights as "
            "floats, without quantisation"
        )


def refuse_quantised(config: Any) -> None:
    """Refuse a checkpoint whose config says that its weights are quantised.

    Raises:
        CheckpointFault: it does.
    """
    quantised = getattr(config, "quantization_config", None)
    if quantised is None:
        return
    fields = quantised if isinstance(quantised, Mapping) else vars(quantised)
    raise CheckpointFault(
        f"config.json says that the weights are quantised ({fields.get('quant_method')}), and only "
        "floats are computed: serve the checkpoint that it was made from, or save it again behind "
        "`model.dequantize()`"
    )


def refuse_more_layers(config: Any, types: Mapping[str, str]) -> None:
    """Refuse a config of more layers than the files have tensors: to build it might never end.

    Raises:
        CheckpointFault: it has.
    """
    layers = getattr(config.get_text_config(), "num_hidden_layers", None) or 0
    if layers > len(types):
        raise CheckpointFault(
            f"config.json names {layers} layers, and the files hold {len(types)} tensors: they do "
            "not belong together"
        )


def refuse_not_finite(model: Any) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        CheckpointFault: one is; the text names the tensors.
    """
    wrong = {name for name, weight in model.named_parameters() if not _is_finite(weight)}
    if wrong:
        raise CheckpointFault(
            f"not finite (NaN or infinite): {summary(wrong)}. The training diverged, or the file "
            "is damaged: take an earlier checkpoint, or copy it again"
        )


def summary(names: Iterable[str]) -> str:
    """Return the first three of these names, and the number of the others."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:3])
    return shown if len(ordered) <= 3 else f"{shown} and {len(ordered) - 3} more"


def _is_finite(weight: torch.Tensor) -> bool:
    if weight.numel() == 0:
        return True
    low, high = torch.aminmax(weight)
    return bool(torch.isfinite(low) and torch.isfinite(high))


def _types_in(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointFault(
                f"{path} is a pointer of Git LFS and not the file: run git lfs pull"
            )
    try:
        with open_unmapped(path) as tensors:
            return {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointFault(
            f"{path} is no complete safetensors file ({error}): copy or save it again"
        ) from error


def _remedy(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    if any(folder.glob("*.gguf")):
        return ": name the GGUF in options.gguf_file"
    if any(folder.glob("pytorch_model*.bin")):
        return (
            ", only a pickle, which is never read: load it where you trust it, and save the model "
            "with save_pretrained"
        )
    return ": save the model there with save_pretrained"
