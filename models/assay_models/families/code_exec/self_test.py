"""The self-test of the sandbox on this machine: it tries to break each guarantee."""

import asyncio
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from assay_models.families.code_exec.cgroup import SMALLEST_BYTES, parent_group
from assay_models.families.code_exec.sandbox import Bounds, Outcome, Sandbox, SandboxFailed

REMEDIES = {
    "namespaces": "let user namespaces be made (sysctl user.max_user_namespaces above 0; on Ubuntu "
    "also kernel.apparmor_restrict_unprivileged_userns=0), and in a container take a seccomp "
    "profile that permits unshare and mount, as docker run --security-opt seccomp=unconfined does",
    "users": "run as root with CAP_SETUID and CAP_SETGID, or as any other user",
    "mounts": "in a container take profiles that permit mounts in namespaces of one's own, as "
    "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined does",
    "network": "take a processor whose system calls can be filtered (x86-64, AArch64)",
    "privileges": "take a processor whose system calls can be filtered (x86-64, AArch64)",
    "memory": "raise options.memory_mb, or free some of the machine's",
    "uncounted memory": "take a processor whose system calls can be filtered (x86-64, AArch64)",
    "memory of all processes": "take a kernel whose memory groups count files in memory",
}
DEFAULT_REMEDY = "take a machine with a newer kernel"


class Guarantee(NamedTuple):
    """A guarantee of the sandbox: the test that tries to break it, and the outcome it must have."""

    name: str
    attempt: str
    outcome: Outcome


# Tried apart from the others, with little memory and much disk.
TOGETHER = Guarantee("memory of all processes", f"hold({SMALLEST_BYTES})", "memory")
SMALL = {"memory_mb": SMALLEST_BYTES >> 20, "disk_mb": 2 * SMALLEST_BYTES >> 20}


class _Outside(NamedTuple):
    """Things on the machine that no program may reach."""

    port: int
    name: str
    secret: Path
    listeners: tuple[socket.socket, ...]

    def is_touched(self) -> bool:
        """Return whether a program has reached them, or is still running."""
        for listener in self.listeners:
            with suppress(BlockingIOError):
                listener.accept()
                return True
        return os.listdir(self.secret.parent) != [self.secret.name] or self.name in _running()


def find_broken_guarantee(bounds: Bounds) -> str | None:
    """Return the first guarantee that does not hold under these bounds, the reason and the remedy.

    It is None if all hold. This costs about a CPU second. Do not call it inside an event loop.
    """
    tried = bounds.model_copy(
        update={"cpu_seconds": 1, "total_cpu_seconds": 50, "wall_seconds": 110.0}
    )
    with _outside() as outside:
        failure = _first_broken(tried, _guarantees(bounds, outside))
        if failure is None and outside.is_touched():
            failure = "leftovers: a probe reached the outside"
    if failure is None and parent_group() is not None:
        failure = _first_broken(tried.model_copy(update=SMALL), (TOGETHER,))
    return None if failure is None else with_remedy(failure)


def _first_broken(bounds: Bounds, guarantees: Sequence[Guarantee]) -> str | None:
    """Return the first of these guarantees that does not hold, and the reason, or None."""
    program = Path(__file__).with_name("probe.py").read_text(encoding="utf-8")
    tests = [guarantee.attempt for guarantee in guarantees]
    try:
        results = asyncio.run(Sandbox(bounds, is_isolated=True).run(program, tests))
    except SandboxFailed as error:
        return str(error)
    for guarantee, result in zip(guarantees, results, strict=True):
        if result.outcome != guarantee.outcome:
            return f"{guarantee.name}: a probe was not stopped ({result.outcome})"
    return None


def with_remedy(failure: str) -> str:
    """Return the failure (`step: reason`) and what to do about it."""
    return f"{failure}. To mend it, {REMEDIES.get(failure.partition(':')[0], DEFAULT_REMEDY)}"


def _guarantees(bounds: Bounds, outside: _Outside) -> tuple[Guarantee, ...]:
    memory, disk = bounds.memory_mb << 20, bounds.disk_mb << 20
    return (
        Guarantee("privileges", "assert privileges()", "pass"),
        Guarantee("network", f"assert network({outside.port}, {outside.name!r})", "pass"),
        Guarantee("files", f"assert files({str(outside.secret)!r})", "pass"),
        Guarantee("disk", f"assert disk({disk})", "pass"),
        Guarantee("uncounted memory", "assert uncounted()", "pass"),
        Guarantee("processes", f"assert processes({bounds.processes})", "pass"),
        Guarantee("signals", f"assert signals({os.getpid()})", "pass"),
        Guarantee("leftovers", f"assert leftovers({outside.name!r})", "pass"),
        Guarantee("memory", f"take({memory})", "memory"),
        Guarantee("time", "spin()", "timeout"),
    )


@contextmanager
def _outside() -> Iterator[_Outside]:
    name = f"assay{secrets.token_hex(4)}"  # the kernel keeps fifteen letters of a process's name
    with (
        socket.socket() as internet,
        socket.socket(socket.AF_UNIX) as local,
        tempfile.TemporaryDirectory(prefix="assay-") as folder,
    ):
        for listener, address in ((internet, ("127.0.0.1", 0)), (local, f"\0{name}")):
            listener.bind(address)
            listener.listen()
            listener.setblocking(False)
        secret = Path(folder, "secret")
        secret.write_text(name, encoding="utf-8")
        secret.chmod(0o644)
        secret.parent.chmod(0o755)  # readable for all users: only its absence protects it
        yield _Outside(internet.getsockname()[1], name, secret, (internet, local))


def _running() -> set[str]:
    """Return the names of all visible processes."""
    names = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            names.add(path.read_text(encoding="utf-8", errors="replace").strip())
    return names
