"""The check that a model's weights fit into memory before they are read."""

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from assay.lifecycle.errors import InsufficientMemory

CPU_OVERHEAD, DEVICE_OVERHEAD = 2.5, 1.25
"""Memory that a load takes at its peak, as a multiple of the loaded weights.

On a CPU layers are laid out anew for its kernels, and both layouts are compared before the model is
served (`python -m benchmarks.lifecycle`).
"""
PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
UNLIMITED = 2**60
"""Version 1 of control groups writes a number beyond this where there is no limit."""

Available = Callable[[], int | None]
"""Returns the bytes that are available; None if they are unknown."""


def check_memory(
    model: str, needed: int | None, reserved: int, available: Available, overhead: float
) -> None:
    """Check that a model fits beside those that are being loaded.

    Args:
        model: `name@version`.
        needed: bytes of its weights; None if they are unknown, and nothing can be checked.
        reserved: bytes of the weights that are being loaded.
        available: returns the bytes that are available now.
        overhead: the multiple of these bytes that a load takes.

    Raises:
        InsufficientMemory: it does not fit.
    """
    room = available() if needed else None
    if not needed or room is None:
        return
    missing = int((needed + reserved) * overhead) - room
    if missing > 0:
        others = f" beside {_text(int(reserved * overhead))} of models that are being loaded"
        raise InsufficientMemory(
            f"{model} needs about {_text(int(needed * overhead))}{others if reserved else ''}, "
            f"{_text(room)} are available: {_text(missing)} are missing",
            hint="unload another model first, or serve this one on another machine",
        )


def available_bytes(proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """Return the memory that this process may still use; None where the system does not say.

    It is what the machine has available, or less where a control group limits it. Pages of files
    that the group has not used lately count as available.
    """
    rooms = [*_machine_room(proc), *_group_rooms(proc, cgroup)]
    return max(0, min(rooms)) if rooms else None


def _machine_room(proc: Path) -> Iterator[int]:
    for line in _lines(proc / "meminfo"):
        name, _, text = line.partition(":")
        if name == "MemAvailable":
            yield int(text.split()[0]) * 1024


def _group_rooms(proc: Path, cgroup: Path) -> Iterator[int]:
    """Yield the room of each control group that holds this process, in both versions."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = cgroup, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = cgroup / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            yield from _room(root / group, *names)


def _room(group: Path, limit_name: str, usage_name: str, cached_name: str) -> Iterator[int]:
    limit, usage = _number(group / limit_name), _number(group / usage_name)
    if limit is None or usage is None or limit >= UNLIMITED:
        return
    statistics = dict(line.partition(" ")[::2] for line in _lines(group / "memory.stat"))
    yield limit - usage + int(statistics.get(cached_name, 0))


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system, or no such control group
        return []


def _text(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB" if size < 2**34 else f"{size / 2**30:,.1f} GiB"
