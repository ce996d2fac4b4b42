"""The memory that a model's weights take, read from the heads of their files."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from assay_models.repository import RepositoryEntry, weight_names, weights_folder

ITEM_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a loaded weight, by torch's name of its type."""
FLOATS = frozenset(("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I8", "U8"))
"""Stored types that are loaded in the type of the settings; weights of 8 bits have scales."""
MAX_HEAD_BYTES = 100_000_000
MAX_TENSOR_BYTES = 2**60
LAYER = re.compile(r"\.(?:layers?|h|block)\.(\d+)\.")
GGUF_BITS = re.compile(r"(?i)(?<![a-z])(?:i?q|b?f)(\d+)")
UNKNOWN_GGUF_BITS = 4
"""Taken for a GGUF whose name does not say its bits: most have at least as many."""


def estimate_bytes(entry: RepositoryEntry, dtype: str) -> int | None:
    """Return the bytes that a model's weights take once they are loaded; None if unknown.

    They are unknown for a hub model that was not downloaded yet, and for files of other formats.

    Args:
        entry: the card and its folder.
        dtype: torch's name of the type in which weights are loaded.

    Raises:
        CardError: the weights are in a package that is not installed.
        OSError: a file cannot be read.
        ValueError: a file is damaged, or an index does not name the files beside it.
    """
    if entry.card.weights.source == "none":
        return 0
    folder = _hub_folder(entry) or weights_folder(entry)
    if folder is None or not folder.is_dir():
        return None
    options, item_bytes = entry.card.options, ITEM_BYTES[dtype]
    gguf = options.get("gguf_file")
    if isinstance(gguf, str):
        return _gguf_bytes(folder / gguf, item_bytes)
    files = [folder / name for name in weight_names(folder) if (folder / name).is_file()]
    if isinstance(options.get("adapter"), str):
        files += sorted((entry.folder / options["adapter"]).glob("*.safetensors"))
    if not files:
        return None
    layers = options.get("num_hidden_layers")
    kept = layers if isinstance(layers, int) else math.inf
    return sum(
        size
        for path in files
        for name, size in tensor_bytes(path, item_bytes)
        if not _is_above(name, kept)
    )


def tensor_bytes(path: Path, item_bytes: int) -> Iterator[tuple[str, int]]:
    """Yield each tensor of a safetensors file with the bytes that it takes once it is loaded.

    Raises:
        OSError: the file cannot be read.
        ValueError: its head is damaged.
    """
    for name, tensor in _head(path).items():
        if name == "__metadata__":
            continue
        try:
            first, last = tensor["data_offsets"]
            elements = math.prod(tensor["shape"])
            stored = int(last) - int(first)
            size = elements * item_bytes if tensor["dtype"] in FLOATS else stored
        except (LookupError, TypeError, OverflowError) as error:
            raise ValueError(f"the head of {path} is damaged") from error
        if not 0 <= size < MAX_TENSOR_BYTES:
            raise ValueError(f"the head of {path} is damaged")
        yield name, int(size)


def _head(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEAD_BYTES:
            raise ValueError(f"{path} is no safetensors file")
        try:
            head = json.loads(file.read(length))
        except RecursionError:
            raise ValueError(f"the head of {path} is damaged") from None
    if not isinstance(head, dict):
        raise ValueError(f"the head of {path} is damaged")
    return head


def _is_above(tensor: str, layers: float) -> bool:
    """Return whether a tensor belongs to a layer that is not loaded."""
    layer = LAYER.search(tensor)
    return layer is not None and int(layer[1]) >= layers


def _gguf_bytes(path: Path, item_bytes: int) -> int:
    """Return the bytes of a GGUF's weights, which are loaded as floats."""
    bits = GGUF_BITS.search(path.stem)
    return path.stat().st_size * 8 * item_bytes // (int(bits[1]) if bits else UNKNOWN_GGUF_BITS)


def _hub_folder(entry: RepositoryEntry) -> Path | None:
    """Return the folder of a downloaded hub model; None if there is none."""
    weights = entry.card.weights
    if weights.source != "hub" or weights.hub is None or weights.revision is None:
        return None
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return cache / f"models--{weights.hub.replace('/', '--')}" / "snapshots" / weights.revision
