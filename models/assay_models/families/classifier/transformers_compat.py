"""How Transformers loads here: without its reports, and a GGUF without reading it three times."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import gguf
from transformers.utils import logging as reports


@contextmanager
def quietly() -> Iterator[None]:
    """No progress bar, no report of missing weights, none of attention that stays as it is; all are
    as before afterwards."""
    logger = logging.getLogger("transformers.modeling_utils")
    bars = reports.is_progress_bar_enabled()
    logger.addFilter(_is_no_report)
    reports.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)
        if bars:
            reports.enable_progress_bar()  # type: ignore[no-untyped-call]


_KNOWN = ("LOAD REPORT", "were not sharded", "support setting its attention implementation")
_READ_AGAIN = ("GGUFReader", "get_tensor_name_map")
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def reading_gguf_once() -> Iterator[None]:
    """One reading of a GGUF serves config, tokenizer and weights; one load at a time.

    Transformers parses the file anew for each of the three, and builds the table of its tensors'
    names once for every module of the model. Both are the same each time and take longer than the
    weights: for the length of a load, the two of the library remember what they gave.
    """
    with _ONE_AT_A_TIME:
        library = vars(gguf)
        forgetful = {name: library[name] for name in _READ_AGAIN}
        library.update({name: cache(one) for name, one in forgetful.items()})
        try:
            yield
        finally:
            library.update(forgetful)


def _is_no_report(record: logging.LogRecord) -> bool:
    # `... layers were not sharded` speaks of a plan for several devices, which nobody asked for.
    said = record.getMessage()
    return not any(known in said for known in _KNOWN)
