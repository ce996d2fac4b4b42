"""Whether the sandbox keeps its promises on this machine, found out by trying to break each."""

import asyncio
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from assay_models.families.code_exec.sandbox import Bounds, Outcome, Sandbox, SandboxFailed

MENDS = {
    "namespaces": "let user namespaces be made (sysctl user.max_user_namespaces above 0; on Ubuntu "
    "also kernel.apparmor_restrict_unprivileged_userns=0), and in a container take a seccomp "
    "profile that permits unshare and mount, as docker run --security-opt seccomp=unconfined does",
    "users": "run as root with CAP_SETUID and CAP_SETGID, or as any other user",
    "mounts": "in a container take profiles that permit mounts in namespaces of one's own, as "
    "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined does",
    "network": "take a processor whose system calls can be filtered (x86-64, AArch64)",
    "privileges": "take a processor whose system calls can be filtered (x86-64, AArch64)",
    "memory": "raise options.memory_mb, or free some of the machine's",
}
OTHERWISE = "take a machine with a newer kernel"


class Promise(NamedTuple):
    """What a program of the sandbox's own does in there, and what has to become of it."""

    name: str
    attempt: str
    outcome: Outcome


class _Outside(NamedTuple):
    """Things of the machine's that no program may reach."""

    port: int
    name: str
    secret: Path
    listeners: tuple[socket.socket, ...]

    def touched(self) -> bool:
        """Whether something did reach them, or is still running."""
        for listener in self.listeners:
            with suppress(BlockingIOError):
                listener.accept()
                return True
        return os.listdir(self.secret.parent) != [self.secret.name] or self.name in _running()


def broken_promise(bounds: Bounds) -> str | None:
    """The first promise that is not kept under these bounds, why, and how to mend it; or None.

    Costs about a CPU second. Not to be called inside an event loop.
    """
    tried = bounds.model_copy(
        update={"cpu_seconds": 1, "total_cpu_seconds": 50, "wall_seconds": 110.0}
    )
    with _outside() as outside:
        promises = _promises(bounds, outside)
        program = Path(__file__).with_name("probe.py").read_text(encoding="utf-8")
        tests = [promise.attempt for promise in promises]
        try:
            verdicts = asyncio.run(Sandbox(tried, isolated=True).run(program, tests))
        except SandboxFailed as error:
            return _told(str(error))
        for promise, verdict in zip(promises, verdicts, strict=True):
            if verdict.outcome != promise.outcome:
                return _told(f"{promise.name}: a probe was not stopped ({verdict.outcome})")
        return _told("leftovers: a probe reached the outside") if outside.touched() else None


def _promises(bounds: Bounds, outside: _Outside) -> tuple[Promise, ...]:
    memory, disk = bounds.memory_mb << 20, bounds.disk_mb << 20
    return (
        Promise("privileges", "assert privileges()", "pass"),
        Promise("network", f"assert network({outside.port}, {outside.name!r})", "pass"),
        Promise("files", f"assert files({str(outside.secret)!r})", "pass"),
        Promise("disk", f"assert disk({disk})", "pass"),
        Promise("processes", f"assert processes({bounds.processes})", "pass"),
        Promise("signals", f"assert signals({os.getpid()})", "pass"),
        Promise("leftovers", f"assert leftovers({outside.name!r})", "pass"),
        Promise("memory", f"bytearray({memory})", "memory"),
        Promise("time", "while True: pass", "timeout"),
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
        secret.parent.chmod(0o755)  # whoever sees the file may read it: only its absence protects
        yield _Outside(internet.getsockname()[1], name, secret, (internet, local))


def _running() -> set[str]:
    """The names of all processes that can be seen."""
    names = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            names.add(path.read_text(encoding="utf-8", errors="replace").strip())
    return names


def _told(broken: str) -> str:
    return f"{broken}. To mend it, {MENDS.get(broken.partition(':')[0], OTHERWISE)}"
