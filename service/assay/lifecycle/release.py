"""The return of memory after a model was unloaded."""

import ctypes
import gc
import sys
import threading
from collections.abc import Callable

from assay.served_model import DEVICE_THREAD

JOIN_SECONDS = 5.0


def end_device_thread(model: str) -> None:
    """Wait until the device thread of a closed model has ended, a few seconds at most.

    A forward pass that hangs there cannot be ended: its model stays in memory with it.
    """
    prefix = f"{DEVICE_THREAD} {model}_"
    for thread in threading.enumerate():
        if thread.name.startswith(prefix):
            thread.join(JOIN_SECONDS)


def return_memory(release_device: Callable[[], None], trim: Callable[[], None] | None) -> None:
    """Return the memory of models that nothing refers to any more to the system.

    Objects from before the last load stay exempt from collection: to scan them would stop the
    event loop for a second. Models are freed without that, as no object of theirs refers back.
    """
    gc.collect()
    release_device()
    if trim is not None:
        trim()


def glibc_release() -> Callable[[], None] | None:
    """Return the function that returns free memory to the system; None without glibc."""
    if not sys.platform.startswith("linux"):
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return None

    def release() -> None:
        trim(0)

    return release
