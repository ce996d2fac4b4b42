"""Bounds on the memory that libraries keep in the process of `assay serve` (record 0039).

Two kinds of memory grow with the variety of requests, not with their number:

- PyTorch keeps a oneDNN descriptor of about 0.3 MB for each shape of a linear layer, by default
  1,024 of them in each thread that runs a model; oneDNN keeps as many kernels for all threads.
- glibc keeps the memory that tensors of all sizes leave between objects that live longer.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

from assay.lifecycle.release import glibc_release

# Read when PyTorch is imported. oneDNN's kernels are found again at once when PyTorch has dropped
# their descriptor, so that a thread needs a few descriptors only.
CACHE_CAPACITIES = {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512"}
CHECK_SECONDS = 5.0
# Freed pages that are used again must be faulted in again: returning them pays off in bulk only.
GROWTH = 0.05


def bound_kernel_caches(environment: MutableMapping[str, str]) -> None:
    """Bound the caches of PyTorch and oneDNN that the environment does not bound.

    It has an effect in a process that has not imported PyTorch yet.
    """
    for name, capacity in CACHE_CAPACITIES.items():
        environment.setdefault(name, capacity)


class FreeMemoryReleaser:
    """Returns free memory to the system each time the process has grown by `GROWTH`.

    Args:
        resident_bytes: returns the resident memory of the process.
        release: returns the free memory of the process to the system.
    """

    def __init__(self, resident_bytes: Callable[[], int], release: Callable[[], None]) -> None:
        self._resident_bytes = resident_bytes
        self._release = release
        self._after_release = 0

    def check(self) -> bool:
        """Release free memory if the process grew since the last time; return whether it did."""
        if self._resident_bytes() <= self._after_release * (1 + GROWTH):
            return False
        self._release()
        self._after_release = self._resident_bytes()
        return True

    def run(self, ending: threading.Event) -> None:
        """Check every `CHECK_SECONDS` until the event is set."""
        while not ending.wait(CHECK_SECONDS):
            self.check()


@contextlib.contextmanager
def releasing_free_memory() -> Iterator[None]:
    """Return free memory to the system from time to time, where glibc manages it."""
    release = glibc_release()
    if release is None:
        yield
        return
    ending = threading.Event()
    releaser = FreeMemoryReleaser(resident_bytes, release)
    thread = threading.Thread(target=releaser.run, args=(ending,), name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
