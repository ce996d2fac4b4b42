"""Servers and helper processes: they are started, sampled, suspended and stopped."""

import contextlib
import fcntl
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

SAMPLE_SECONDS = 0.25
STOP_SECONDS = 10.0


def free_port() -> int:
    """Return a port of the loopback address that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def exclusive(lock: Path | None) -> Iterator[None]:
    """Hold a file's lock, so that measurements on one machine wait for each other."""
    if lock is None:
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class ProcessTree:
    """A process and all of its descendants."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._root = psutil.Process(self._process.pid)

    @property
    def is_alive(self) -> bool:
        """Whether the first process still runs."""
        return self._process.poll() is None

    def members(self) -> list[psutil.Process]:
        """Return every running process of the tree."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._root, *self._root.children(recursive=True)]
        return []

    def cpu_seconds(self) -> float:
        """Return the CPU time of the tree so far, user and system."""
        total = 0.0
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                total += times.user + times.system
        return total

    def memory_bytes(self) -> int:
        """Return the resident memory of the tree now; shared pages count for each process."""
        total = 0
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
        return total

    def suspend(self) -> None:
        """Suspend the tree, so that it takes no CPU time from others."""
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.suspend()

    def resume(self) -> None:
        """Resume a suspended tree."""
        for member in reversed(self.members()):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.resume()

    def log_tail(self, lines: int = 5) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """Interrupt the tree, then kill what is left of it."""
        members = self.members()
        self.resume()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        _, left = psutil.wait_procs(members, timeout=STOP_SECONDS)
        for member in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self._process.wait()


class MemorySampler:
    """The peak memory of a tree while the context is entered."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self.peak_bytes = max(self.peak_bytes, self._tree.memory_bytes())

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._tree.memory_bytes())


class HelperProcess:
    """A process that exchanges lines with this one over its standard streams."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603
                list(command),
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def send(self, text: str) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def receive(self) -> str:
        """Return the next line it prints.

        Raises:
            RuntimeError: it ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = self.log.read_text(errors="replace").splitlines()[-3:]
            raise RuntimeError("a helper process ended: " + " | ".join(tail))
        return line.strip()

    def request(self, command: Mapping[str, Any]) -> Any:
        """Send a command as JSON and return its answer."""
        self.send(json.dumps(command))
        return json.loads(self.receive())

    def stop(self) -> None:
        """Close its input, which ends it; kill it if that does not."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_until_idle(tree: ProcessTree, timeout: float) -> bool:
    """Wait until a server uses almost no CPU; return whether that was before the timeout."""
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        before = tree.cpu_seconds()
        time.sleep(SAMPLE_SECONDS)
        if tree.cpu_seconds() - before < 0.2 * SAMPLE_SECONDS:
            return True
    return False
