"""Places of memory groups, by the kernel's files of version 1 and 2.

The files of the kernel are imitated here, because a machine has one of the versions only, and few
delegate version 2. Limits that the kernel itself enforces are tested in test_memory.py.
"""

import os
from pathlib import Path

import pytest

from assay_models.families.code_exec import cgroup

VERSION_1 = "35 31 0:32 {root} {mount} rw,relatime - cgroup cgroup rw,memory"
VERSION_2 = "41 31 0:38 {root} {mount} rw,relatime - cgroup2 cgroup2 rw"


class Kernel:
    """A folder of control groups, and the files in which a process reads its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mount = folder / "mount"
        self.process = folder / "process"
        self.process.mkdir()
        monkeypatch.setattr(cgroup, "PROCESS", self.process)

    def own(self, path: str, *members: int, unified: bool, root: str = "/") -> Path:
        """Put the process into the group of that path, and return the group's folder."""
        group = self.mount / os.path.relpath(path, root)
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.procs").write_text("".join(f"{member}\n" for member in members))
        (group / "cgroup.controllers").write_text("cpu memory pids\n")
        line = VERSION_2 if unified else VERSION_1
        (self.process / "mountinfo").write_text(line.format(root=root, mount=self.mount))
        names = "0:" if unified else "4:memory"
        (self.process / "cgroup").write_text(f"8:pids:/\n{names}:{path}\n")
        return group


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


@pytest.mark.parametrize("unified", [False, True])
def test_the_own_group_is_found_below_the_mounted_one(kernel: Kernel, unified: bool) -> None:
    group = kernel.own("/docker/a/b", os.getpid(), unified=unified, root="/docker/a")
    assert cgroup._own_group() == (kernel.mount / "b", unified)
    assert group == kernel.mount / "b"


def test_a_group_that_does_not_hold_this_process_is_not_its_own(kernel: Kernel) -> None:
    kernel.own("/a", 1, unified=False)
    with pytest.raises(LookupError, match="no group that limits memory"):
        cgroup._own_group()


def test_a_group_of_version_2_without_memory_is_of_no_use(kernel: Kernel) -> None:
    group = kernel.own("/a", os.getpid(), unified=True)
    (group / "cgroup.controllers").write_text("cpu\n")
    with pytest.raises(LookupError, match="no group that limits memory"):
        cgroup._own_group()


def test_a_server_alone_in_its_group_of_version_2_moves_to_a_leaf(kernel: Kernel) -> None:
    group = kernel.own("/a", os.getpid(), unified=True)
    assert cgroup._delegated(group) == group
    assert (group / "server" / "cgroup.procs").read_text() == str(os.getpid())
    assert (group / "cgroup.subtree_control").read_text() == "+memory"


def test_a_server_in_its_leaf_makes_groups_beside_it(kernel: Kernel) -> None:
    group = kernel.own("/a/server", os.getpid(), 1, unified=True)
    assert cgroup._delegated(group) == group.parent


def test_a_server_that_shares_its_group_of_version_2_is_left_there(kernel: Kernel) -> None:
    group = kernel.own("/a", os.getpid(), 1, unified=True)
    with pytest.raises(LookupError, match="not alone"):
        cgroup._delegated(group)
    assert not (group / "server").exists()


def test_groups_of_ended_servers_are_removed_and_of_living_ones_kept(tmp_path: Path) -> None:
    names = {f"assay-{os.getpid()}-7", "assay-4194999-1", "assay-runs", "others"}
    for name in names:
        (tmp_path / name).mkdir()
    cgroup._remove_groups_of_ended_servers(tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == names - {"assay-4194999-1"}


def test_a_group_without_the_kernels_files_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cgroup._make(tmp_path / "group", 1 << 26)
    assert not (tmp_path / "group").exists()
