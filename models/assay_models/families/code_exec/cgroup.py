"""Control groups of the kernel: a limit on the memory of all of a program's processes together.

A group also counts memory that no limit of a process does: files in memory, buffers of pipes and
sockets, page tables. It is made below the server's own group, so that the server's limit holds as
well, and only where the server may write there. Version 1: as root. Version 2: where the control of
memory is delegated to the server (systemd: `Delegate=memory` and `DelegateSubgroup=server`; or a
container in which /sys/fs/cgroup is writable). There, groups can only be made beside processes'
groups, so a server that is alone in its group moves to a leaf of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

LEAF = "server"
PREFIX = "assay-"
PROCESS = Path("/proc/self")
SMALLEST_BYTES = 1 << 26
_numbers = count()
_unremoved: set[Path] = set()


class MemoryGroup(NamedTuple):
    """The files of a group: by which a process joins it, in which the kernel counts the processes
    that it has killed, and the bytes that the group has held at most."""

    members: str
    kills: str
    peak: str


@contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup | None]:
    """Make a group whose processes hold at most that many bytes together; remove it at the end.

    It is None where no group can be had. A group whose processes are still ending is removed at the
    end of a later one.
    """
    parent = parent_group()
    if parent is None:
        yield None
        return
    folder = parent / f"{PREFIX}{os.getpid()}-{next(_numbers)}"
    try:
        yield _make(folder, limit)
    finally:
        _unremoved.add(folder)
        for group in tuple(_unremoved):
            with suppress(OSError):
                group.rmdir()
            if not group.exists():
                _unremoved.discard(group)


@cache
def parent_group() -> Path | None:
    """Return the folder in which groups can be made, or None."""
    try:
        own, is_unified = _own_group()
        parent = _delegated(own) if is_unified else own
        probe = parent / f"{PREFIX}{os.getpid()}-probe"
        _make(probe, SMALLEST_BYTES)
        probe.rmdir()
        _remove_groups_of_ended_servers(parent)
    except (OSError, LookupError):
        return None
    return parent


def _make(folder: Path, limit: int) -> MemoryGroup:
    """Make a group. A kernel that has no swap, or does not count it, lacks the second limit."""
    folder.mkdir()
    try:
        if (folder / "memory.max").exists():
            kills, peak = "memory.events", "memory.peak"
            # A parent may wait for a child that was killed.
            limits = {"memory.max": limit, "memory.swap.max": 0, "memory.oom.group": 1}
        else:
            kills, peak = "memory.oom_control", "memory.max_usage_in_bytes"
            limits = {"memory.limit_in_bytes": limit, "memory.memsw.limit_in_bytes": limit}
        (folder / peak).read_text()
        for place, (name, value) in enumerate(limits.items()):
            if place == 0 or (folder / name).exists():
                (folder / name).write_text(str(value))
    except OSError:
        folder.rmdir()
        raise
    return MemoryGroup(*(str(folder / name) for name in ("cgroup.procs", kills, peak)))


def _own_group() -> tuple[Path, bool]:
    """Return the folder of this process's group, and whether it is of version 2.

    Raises:
        LookupError: the kernel limits no memory, or the group is not visible.
    """
    paths: dict[str, str] = {}
    for line in (PROCESS / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in (PROCESS / "mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        root, mounted = place.split()[3:5]
        system, _, options = kind.split()
        is_unified = system == "cgroup2"
        if is_unified or (system == "cgroup" and "memory" in options.split(",")):
            path = paths.get("" if is_unified else "memory", root)
            own = Path(mounted, os.path.relpath(path, root))
            if os.getpid() in _members(own) and (not is_unified or "memory" in _controllers(own)):
                return own, is_unified
    raise LookupError("no group that limits memory")


def _delegated(own: Path) -> Path:
    """Return the folder of version 2 in which groups can be made; move this process if need be.

    Raises:
        LookupError: other programs are in this process's group.
        OSError: the group is not delegated.
    """
    if own.name == LEAF:
        parent = own.parent
    elif set(_members(own)) == {os.getpid()}:
        parent = own
        (own / LEAF).mkdir(exist_ok=True)
        (own / LEAF / "cgroup.procs").write_text(str(os.getpid()))
    else:
        raise LookupError("the server is not alone in its group")
    (parent / "cgroup.subtree_control").write_text("+memory")
    return parent


def _members(group: Path) -> list[int]:
    with suppress(OSError):
        return [int(process) for process in (group / "cgroup.procs").read_text().split()]
    return []


def _controllers(group: Path) -> list[str]:
    """Return the controllers that a group of version 2 can use."""
    return (group / "cgroup.controllers").read_text().split()


def _remove_groups_of_ended_servers(parent: Path) -> None:
    """Remove the groups that servers have left behind which were killed."""
    for group in parent.glob(f"{PREFIX}*"):
        process = group.name.removeprefix(PREFIX).partition("-")[0]
        if process.isdecimal() and not Path("/proc", process).exists():
            with suppress(OSError):
                group.rmdir()
