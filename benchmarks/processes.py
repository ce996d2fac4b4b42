"""Servers and helper processes: started apart, watched, put to sleep, and ended for certain."""

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
END_SECONDS = 10.0


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def turn(lock: Path | None) -> Iterator[None]:
    """Hold a file's lock, so that measurements on one machine wait for each other."""
    if lock is None:
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Tree:
    """A process and all that it started."""

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
    def alive(self) -> bool:
        """Whether the first process still runs."""
        return self._process.poll() is None

    def members(self) -> list[psutil.Process]:
        """Every process of the tree that lives now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._root, *self._root.children(recursive=True)]
        return []

    def cpu_seconds(self) -> float:
        """CPU time of the tree so far, user and system."""
        total = 0.0
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                total += times.user + times.system
        return total

    def memory_bytes(self) -> int:
        """Resident memory of the tree now; pages that processes share count for each."""
        total = 0
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
        return total

    def sleep(self) -> None:
        """Stop the tree where it is, so that it costs others nothing."""
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.suspend()

    def wake(self) -> None:
        """Let a stopped tree go on."""
        for member in reversed(self.members()):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.resume()

    def tail(self, lines: int = 5) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def end(self) -> None:
        """Ask the tree to stop, then make it."""
        members = self.members()
        self.wake()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        _, left = psutil.wait_procs(members, timeout=END_SECONDS)
        for member in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self._process.wait()


class Watch:
    """The peak memory of a tree while the watch is on."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.peak_bytes = max(self.peak_bytes, self._tree.memory_bytes())

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._tree.memory_bytes())


class Dialogue:
    """A helper process that is spoken to in lines of JSON."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as noise:
            self._process = subprocess.Popen(  # noqa: S603
                list(command),
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=noise,
                text=True,
            )

    def say(self, text: str) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """The next line it says.

        Raises:
            RuntimeError: it ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = self.log.read_text(errors="replace").splitlines()[-3:]
            raise RuntimeError("a helper process ended: " + " | ".join(tail))
        return line.strip()

    def ask(self, order: Mapping[str, Any]) -> Any:
        """Send an order, and wait for its answer."""
        self.say(json.dumps(order))
        return json.loads(self.hear())

    def end(self) -> None:
        """Close its input, which ends it; kill it if that does not."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def settle(tree: Tree, patience: float) -> bool:
    """Wait until a server does nothing; whether it came to rest in time."""
    ends = time.monotonic() + patience
    while time.monotonic() < ends:
        before = tree.cpu_seconds()
        time.sleep(SAMPLE_SECONDS)
        if tree.cpu_seconds() - before < 0.2 * SAMPLE_SECONDS:
            return True
    return False
