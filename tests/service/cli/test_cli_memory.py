"""The bounds on memory that `assay serve` sets, and their effect on PyTorch and on glibc."""

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Mapping

import pytest

from assay.cli.memory import (
    CACHE_CAPACITIES,
    FreeMemoryReleaser,
    bound_kernel_caches,
    releasing_free_memory,
    resident_bytes,
)
from assay.lifecycle.release import glibc_release

MIB = 2**20
BLOCK_BYTES = 64 * 1024
# Runs the shapes of a linear layer in one thread, then in a second, while the first still lives,
# and prints the bytes in use that the second added.
SECOND_THREAD = """
import ctypes, os, sys, threading
from assay.cli import memory
assert "torch" not in sys.modules
memory.bound_kernel_caches(os.environ)
import torch

class Allocated(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split())]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Allocated
weight = torch.ops.mkldnn._reorder_linear_weight(torch.randn(192, 64), None)
rows = torch.randn(400, 64)
done, ending = threading.Semaphore(0), threading.Event()

def run_all_shapes():
    for count in range(1, 400):
        torch.ops.mkldnn._linear_pointwise(rows[:count], weight, None, "none", [], "")
    done.release()
    ending.wait()

used = []
for _ in range(2):
    threading.Thread(target=run_all_shapes, daemon=True).start()
    done.acquire()
    used.append(libc.mallinfo2().uordblks)
print(used[1] - used[0])
sys.stdout.flush()
os._exit(0)
"""

needs_glibc = pytest.mark.skipif(glibc_release() is None, reason="the platform has no glibc")


class Memory:
    """Resident memory of a process that grows and shrinks on request."""

    def __init__(self, resident: int, free: int = 0) -> None:
        self.resident = resident
        self.free = free
        self.releases = 0

    def release(self) -> None:
        self.resident -= self.free
        self.free = 0
        self.releases += 1

    def releaser(self) -> FreeMemoryReleaser:
        return FreeMemoryReleaser(lambda: self.resident, self.release)


def test_bound_kernel_caches_unset_sets_both() -> None:
    environment: dict[str, str] = {}
    bound_kernel_caches(environment)
    assert environment == {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512"}


def test_bound_kernel_caches_set_by_the_user_leaves_that_one() -> None:
    environment = {"LRU_CACHE_CAPACITY": "1024"}
    bound_kernel_caches(environment)
    assert environment == {"LRU_CACHE_CAPACITY": "1024", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512"}


def second_thread_bytes(capacities: Mapping[str, str]) -> int:
    others = {name: text for name, text in os.environ.items() if name not in CACHE_CAPACITIES}
    command = [sys.executable, "-c", SECOND_THREAD]
    environment = {**others, **capacities}
    run = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=60
    )
    return int(run.stdout)


@needs_glibc
@pytest.mark.slow
def test_bound_kernel_caches_a_second_thread_keeps_less_than_half() -> None:
    assert second_thread_bytes({}) < second_thread_bytes({"LRU_CACHE_CAPACITY": "1024"}) / 2


def test_releaser_first_check_releases() -> None:
    memory = Memory(resident=1000, free=400)
    assert memory.releaser().check()
    assert memory.resident == 600


def test_releaser_growth_below_the_bound_releases_nothing() -> None:
    memory = Memory(resident=1000)
    releaser = memory.releaser()
    releaser.check()
    memory.resident = 1050
    assert not releaser.check()
    assert memory.releases == 1


def test_releaser_growth_beyond_the_bound_releases_and_starts_from_what_is_left() -> None:
    memory = Memory(resident=1000)
    releaser = memory.releaser()
    releaser.check()
    memory.resident, memory.free = 1300, 100
    assert releaser.check()
    assert not releaser.check()
    memory.resident = 1261
    assert releaser.check()


def test_releaser_memory_that_shrank_still_counts_from_the_last_release() -> None:
    memory = Memory(resident=1000)
    releaser = memory.releaser()
    releaser.check()
    memory.resident = 500
    assert not releaser.check()
    memory.resident = 1040
    assert not releaser.check()


@needs_glibc
def test_glibc_release_blocks_freed_between_live_ones_leave_the_process() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK_BYTES) for _ in range(2048)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    for block in blocks[::2]:
        libc.free(block)
    before = resident_bytes()
    release = glibc_release()
    assert release is not None
    release()
    after = resident_bytes()
    for block in blocks[1::2]:
        libc.free(block)
    assert before - after > 32 * MIB


def test_releasing_free_memory_ends_its_thread() -> None:
    with releasing_free_memory():
        pass
    assert "memory" not in [thread.name for thread in threading.enumerate()]


def test_run_of_a_set_event_checks_nothing() -> None:
    memory = Memory(resident=1000)
    ending = threading.Event()
    ending.set()
    memory.releaser().run(ending)
    assert memory.releases == 0
