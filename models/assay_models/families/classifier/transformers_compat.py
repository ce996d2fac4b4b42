"""Adjustments to loading by Transformers: no reports, no mapped files, and a GGUF read once."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import gguf
from safetensors import safe_open
from transformers import modeling_utils
from transformers.utils import logging as reports


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Suppress the progress bar, the report of missing weights and the one of attention that stays
    as it is; afterwards all are as before."""
    logger = logging.getLogger("transformers.modeling_utils")
    bars = reports.is_progress_bar_enabled()
    logger.addFilter(_is_kept)
    reports.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logger.removeFilter(_is_kept)
        if bars:
            reports.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def read_without_mapping() -> Iterator[None]:
    """Let Transformers read safetensors files into this process's own memory, tensor by tensor.

    It maps the files, and a write into a mapped file changes the weights of a running model;
    if the file is cut, the process dies of it. Blocks may overlap in several threads.
    """
    library = vars(modeling_utils)
    with _READING_LOCK:
        _READING.append(True)
        library["safe_open"] = open_unmapped
    try:
        yield
    finally:
        with _READING_LOCK:
            _READING.pop()
            if not _READING:
                library["safe_open"] = safe_open


def open_unmapped(path: Any, framework: str = "pt", **options: Any) -> Any:
    """Open a safetensors file as `safe_open` does, for reading without mapping it."""
    return safe_open(path, framework, **{**options, "backend": "pread"})


_SUPPRESSED = ("LOAD REPORT", "were not sharded", "support setting its attention implementation")
_CACHED = ("GGUFReader", "get_tensor_name_map")
_LOAD_LOCK = threading.Lock()
_READING_LOCK = threading.Lock()
_READING: list[bool] = []


@contextmanager
def cache_gguf_reading() -> Iterator[None]:
    """Read a GGUF once for config, tokenizer and weights, and let only one load run at a time.

    Transformers parses the file anew for each of the three, and builds the table of its tensors'
    names once for every module of the model. Both are the same each time and take longer than the
    weights. For the duration of a load, the two functions of the library cache their results.
    """
    with _LOAD_LOCK:
        library = vars(gguf)
        originals = {name: library[name] for name in _CACHED}
        library.update({name: cache(function) for name, function in originals.items()})
        try:
            yield
        finally:
            library.update(originals)


def _is_kept(record: logging.LogRecord) -> bool:
    # `... layers were not sharded` is about a plan for several devices, which is never used here.
    message = record.getMessage()
    return not any(text in message for text in _SUPPRESSED)
