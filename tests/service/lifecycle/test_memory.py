"""The memory that is available to the process, and the check before a load."""

from pathlib import Path

import pytest

from assay.lifecycle.errors import InsufficientMemory
from assay.lifecycle.memory import available_bytes, check_memory

MIB = 2**20


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    write(folder, meminfo="MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable: 4096 kB")
    return folder


def test_available_bytes_without_a_limit_are_the_machines(proc: Path, tmp_path: Path) -> None:
    assert available_bytes(proc, tmp_path) == 4 * MIB
    write(proc / "self", cgroup="0::/")
    write(tmp_path, memory__max="max", memory__current=MIB)
    assert available_bytes(proc, tmp_path) == 4 * MIB


def test_available_bytes_are_those_of_the_narrowest_group(proc: Path, tmp_path: Path) -> None:
    write(proc / "self", cgroup="0::/pod/server")
    statistics = f"anon 1\ninactive_file {MIB // 2}\n"
    write(tmp_path / "pod", memory__max=3 * MIB, memory__current=2 * MIB, memory__stat=statistics)
    write(tmp_path / "pod" / "server", memory__max=8 * MIB, memory__current=MIB)
    assert available_bytes(proc, tmp_path) == 1.5 * MIB


def test_available_bytes_of_a_full_group_are_none(proc: Path, tmp_path: Path) -> None:
    write(proc / "self", cgroup="0::/")
    write(tmp_path, memory__max=MIB, memory__current=2 * MIB)
    assert available_bytes(proc, tmp_path) == 0


def test_available_bytes_of_groups_of_the_first_version(proc: Path, tmp_path: Path) -> None:
    write(proc / "self", cgroup="9:cpu:/\n3:memory:/docker/x")
    limits = {"memory__limit_in_bytes": 2 * MIB, "memory__usage_in_bytes": MIB}
    write(tmp_path / "memory" / "docker" / "x", **limits, memory__stat="total_inactive_file 7")
    unlimited = {"memory__limit_in_bytes": 2**63 - 4096, "memory__usage_in_bytes": MIB}
    write(tmp_path / "memory", **unlimited)
    assert available_bytes(proc, tmp_path) == MIB + 7


def test_available_bytes_are_unknown_where_the_system_does_not_say(tmp_path: Path) -> None:
    assert available_bytes(tmp_path, tmp_path) is None


def test_available_bytes_of_this_machine_are_plausible() -> None:
    available = available_bytes()
    assert available is not None
    assert available > 0


def test_check_memory_of_what_is_unknown_or_nothing_passes() -> None:
    check_memory("m@1", None, 0, lambda: 0, 2.0)
    check_memory("m@1", 0, 0, lambda: 0, 2.0)
    check_memory("m@1", 5, 0, lambda: None, 2.0)
    check_memory("m@1", 5 * MIB, 5 * MIB, lambda: 20 * MIB, 2.0)


def test_check_memory_says_how_much_is_missing() -> None:
    with pytest.raises(InsufficientMemory) as raised:
        check_memory("m@1", 500 * MIB, 100 * MIB, lambda: 1000 * MIB, 2.0)
    assert raised.value.detail == (
        "m@1 needs about 1,000 MiB beside 200 MiB of models that are being loaded, "
        "1,000 MiB are available: 200 MiB are missing"
    )
    assert raised.value.hint
