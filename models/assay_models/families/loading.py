"""Loading without noise: what Transformers reports while it loads is here an error or nothing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as reports


@contextmanager
def quietly() -> Iterator[None]:
    """No progress bar and no report of missing weights; both are as before afterwards."""
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


def _is_no_report(record: logging.LogRecord) -> bool:
    # `... layers were not sharded` speaks of a plan for several devices, which nobody asked for.
    said = record.getMessage()
    return "LOAD REPORT" not in said and "were not sharded" not in said
