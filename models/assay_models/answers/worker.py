"""The program of the processes that read mathematics: texts in, canonical forms out."""

from assay_models.answers.mathematics import canonical_form, warm_up
from assay_models.answers.pool import FORM, LIMIT, UNREADABLE
from assay_models.workers.process import serve

CPU_SECONDS = 2.0
"""The CPU time for one text."""

MEMORY_BYTES = 1 << 30
"""The address space of the process."""


def main() -> None:
    """Answer the requests on file descriptor 0 until it is closed."""
    warm_up()
    serve(_answer, cpu_seconds=CPU_SECONDS, memory_bytes=MEMORY_BYTES)


def _answer(request: bytes) -> bytes:
    try:
        form = canonical_form(request.decode(errors="replace"))
    except (MemoryError, RecursionError):
        return LIMIT
    return UNREADABLE if form is None else FORM + form.encode(errors="replace")
