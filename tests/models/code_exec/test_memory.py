"""The memory of a program: all that it holds in any form is bounded, or refused."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from support.sandboxes import (
    BOUNDS,
    ISOLATED,
    outcomes,
    sandbox_processes,
    skip_without_isolation,
    wait_until,
)

from assay_models.families.code_exec import cgroup, sandbox, seccomp, self_test
from assay_models.families.code_exec.cgroup import MemoryGroup, memory_group, parent_group

DONE, TEST = "\ndone = True\n", "assert done"
LIMIT = BOUNDS.memory_mb << 20
HEAD = """
import ctypes, fcntl, os, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.shmat.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.shmdt.argtypes = [ctypes.c_void_p]
def checked(value):
    if value == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return value
def in_children(hold, count):
    # Each has a pipe of its own, which ends if the kernel kills it.
    pipes = []
    for _ in range(count):
        read, write = os.pipe()
        if os.fork() == 0:
            held = hold()
            os.write(write, b"!")
            signal.pause()
        os.close(write)
        pipes.append(read)
    return [os.read(read, 1) for read in pipes]
"""
SHARED_MEMORY = """
for _ in range(3):
    segment = checked(libc.shmget(0, 100 << 20, 0o1600))
    address = libc.shmat(segment, None, 0)
    ctypes.memset(address, 1, 100 << 20)
    libc.shmdt(address)
"""
NAMELESS_FILES = """
for number in range(20):
    os.write(os.memfd_create(str(number)), bytes(15 << 20))
"""
UNCOUNTED = {
    "shared memory of System V": SHARED_MEMORY,
    "files without a name": NAMELESS_FILES,
    "secret memory": "checked(libc.syscall(447, 0))",
    "message queues": "checked(libc.msgget(0, 0o1600))",
    "POSIX message queues": "checked(libc.mq_open(b'/queue', os.O_CREAT | os.O_RDWR, 0o600, None))",
    "semaphores of System V": "checked(libc.semget(0, 100, 0o1600))",
    "watches of files": "checked(libc.inotify_init())",
    "pages given to a pipe": "checked(libc.vmsplice(os.pipe()[1], None, 0, 0))",
    "timers": "[checked(libc.timer_create(0, None, ctypes.byref(ctypes.c_void_p())))"
    " for _ in range(1000)]",
    "locked memory": "checked(libc.mlock(ctypes.create_string_buffer(4096), 4096))",
    "large buffers of pipes": "[fcntl.fcntl(os.pipe()[1], 1031, 1 << 20) for _ in range(99)]",
    "deleted files": "files = []\nfor _ in range(99):\n    files.append(open('f', 'wb', 0))\n"
    "    os.unlink('f')\n    files[-1].write(bytes(1 << 20))",
}
TOGETHER = {
    "processes": "in_children(lambda: bytearray(b'x') * (100 << 20), 4)",
    "shared pages": "import mmap\n"
    "in_children(lambda: mmap.mmap(-1, 100 << 20).write(bytes(100 << 20)), 4)",
    "page tables": "for gigabyte in range(64, 60000):\n"
    "    page = checked(libc.mmap(gigabyte << 30, 4096, 3, 0x32, -1, 0))\n"
    "    ctypes.memset(page, 1, 1)",
    "sockets": """
def full_sockets():
    sockets = []
    for _ in range(28):
        sockets += socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in sockets[-2:]:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            try:
                while True:
                    end.send(bytes(100_000))
            except OSError:
                pass
    return sockets
in_children(full_sockets, 7)
""",
}


@pytest.fixture
def _isolated() -> None:
    skip_without_isolation()


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that each group has held at most."""
    skip_without_isolation()
    if parent_group() is None:
        pytest.skip("no memory group can be made here")
    peaks: list[int] = []

    @contextmanager
    def recording(limit: int) -> Iterator[MemoryGroup | None]:
        with memory_group(limit) as group:
            yield group
            assert group is not None
            folder = Path(group.members).parent
            names = "memory.peak", "memory.max_usage_in_bytes"
            peaks.extend(int((folder / n).read_text()) for n in names if (folder / n).exists())

    monkeypatch.setattr(sandbox, "memory_group", recording)
    return peaks


@pytest.mark.usefixtures("_isolated")
@pytest.mark.parametrize("name", UNCOUNTED)
def test_memory_that_no_limit_counts_is_refused_without_a_group(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "parent_group", lambda: None)
    assert outcomes(HEAD + UNCOUNTED[name] + DONE, TEST) == ["error"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TOGETHER)
def test_all_memory_of_a_program_together_is_bounded(name: str, peaks: list[int]) -> None:
    assert outcomes(HEAD + TOGETHER[name] + DONE, TEST) == ["memory"]
    assert 0 < max(peaks) <= LIMIT


def test_memory_within_the_bound_is_allowed_for_each_test_anew(peaks: list[int]) -> None:
    program = f"{HEAD}in_children(lambda: bytearray(b'x') * (60 << 20), 2){DONE}"
    assert outcomes(program, *[TEST] * 4) == ["pass"] * 4
    assert 120 << 20 < max(peaks) <= LIMIT


def test_the_memory_of_a_test_is_free_in_the_next(peaks: list[int]) -> None:
    program = "def hold(count):\n    in_children(lambda: bytearray(b'x') * (100 << 20), count)\n"
    tests = ["assert hold(4) is None", "assert hold(1) is None"] * 2
    assert outcomes(HEAD + program, *tests) == ["memory", "pass"] * 2
    assert len(peaks) == 1


def test_no_group_remains(peaks: list[int]) -> None:
    parent = parent_group()
    assert parent is not None
    outcomes("done = True", TEST)
    assert peaks
    assert not list(parent.glob(f"assay-{os.getpid()}-*"))


async def test_a_group_of_a_cancelled_run_is_removed_after_the_next(peaks: list[int]) -> None:
    parent = parent_group()
    assert parent is not None
    pending = asyncio.ensure_future(ISOLATED.run("import signal\nsignal.pause()", [TEST]))
    await wait_until(lambda: len(sandbox_processes()) >= 3)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    await wait_until(lambda: sandbox_processes() == [])
    await ISOLATED.run("done = True", [TEST])
    assert not list(parent.glob(f"assay-{os.getpid()}-*"))


@pytest.mark.usefixtures("peaks")
def test_a_group_that_bounds_nothing_is_a_broken_guarantee(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "memory_group", lambda limit: nullcontext())
    failure = self_test.find_broken_guarantee(BOUNDS)
    assert failure is not None
    assert failure.startswith("memory of all processes: a probe was not stopped (pass)")


@pytest.mark.usefixtures("_isolated")
def test_a_filter_that_refuses_no_shared_memory_is_a_broken_guarantee(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = {name: numbers for name, numbers in seccomp.REFUSED.items() if name != "shmget"}
    monkeypatch.setattr(seccomp, "REFUSED", kept)
    failure = self_test.find_broken_guarantee(BOUNDS)
    assert failure is not None
    assert failure.startswith("uncounted memory: a probe was not stopped (fail)")
