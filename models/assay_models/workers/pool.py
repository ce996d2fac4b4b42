"""A pool of processes for untrusted texts, as few as there are texts at once."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import weakref

from assay_models.workers.process import receive, send

WORKERS = 2
DEADLINE_SECONDS = 30.0
"""The wall-clock time for one request. Its CPU time is bounded in the worker, so a request that
takes longer waits for the machine."""

_FATAL = frozenset((signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV))
_ATTEMPTS = 2
_PROGRAM = """
import sys
sys.path[:] = sys.argv[1:]
from {module} import main
main()
"""


class WorkerUnavailable(Exception):
    """A request could not be answered for a reason that is not in it.

    No process could be started, one was killed from outside, or the machine is too busy. Another
    attempt may succeed.
    """


class LimitExceeded(Exception):
    """A worker died of the request: of too much work, or twice of a fault."""


class WorkerPool:
    """Worker processes that run one program, for any number of threads at once.

    A worker starts with the first request that finds none idle, and answers one at a time. `close`,
    the end of this object or the end of the process stops the workers. In a forked child the object
    starts workers of its own.

    Args:
        module: the module whose `main` a worker runs (see `process.serve`).
        workers: the processes at once.
    """

    def __init__(self, module: str, workers: int = WORKERS) -> None:
        self._program = _PROGRAM.format(module=module)
        self._count = workers
        self._groups: dict[int, _WorkerGroup] = {}

    def ask(self, request: bytes) -> bytes:
        """Return the reply to a request.

        Raises:
            LimitExceeded: a worker died of too much work, or two of them of a fault.
            WorkerUnavailable: the request is not at fault.
        """
        group, status = self._group_of_this_process(), 0
        for attempt in range(_ATTEMPTS):
            answer = group.ask(request)
            if isinstance(answer, bytes):
                return answer
            status = answer
            if status == -signal.SIGPROF or (attempt and -status in _FATAL):
                raise LimitExceeded(f"a worker ended with status {status}")
        raise WorkerUnavailable(f"the worker ended with status {status}")

    def close(self) -> None:
        """Stop the workers. Requests that come later start new ones."""
        group = self._groups.pop(os.getpid(), None)
        if group is not None:
            group.stop()

    def _group_of_this_process(self) -> "_WorkerGroup":
        # Never a lock of the parent's: the thread that held it does not exist in a forked child.
        own = os.getpid()
        if own not in self._groups:
            for process in [number for number in self._groups if number != own]:
                self._groups.pop(process).abandon()
            self._groups.setdefault(own, _WorkerGroup(self._program, self._count))
        return self._groups[own]


class _WorkerGroup:
    """The workers of one process; a slot without a worker is None."""

    def __init__(self, program: str, count: int) -> None:
        self._program = program
        self._running: set[_Worker] = set()
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(count):
            self._slots.put(None)
        self.stop = weakref.finalize(self, _stop, self._running)

    def ask(self, request: bytes) -> bytes | int:
        """Return the answer, or the exit status of the worker that died of the request.

        Raises:
            WorkerUnavailable: no worker is free within the deadline, or the group was stopped.
        """
        try:
            worker = self._slots.get(timeout=DEADLINE_SECONDS)
        except queue.Empty:
            raise WorkerUnavailable(
                f"no worker was free for {DEADLINE_SECONDS:g} seconds"
            ) from None
        kept = None
        try:
            if not self.stop.alive:
                raise WorkerUnavailable("the workers were closed")
            worker = worker or self._start()
            answer = worker.ask(request)
            kept = worker if isinstance(answer, bytes) else None
            return answer
        finally:
            if worker is not None and kept is None:
                self._running.discard(worker)
                worker.stop()
            self._slots.put(kept)

    def abandon(self) -> None:
        """Release the parent's workers, in a forked child, without stopping them."""
        self.stop.detach()
        for worker in self._running:
            worker.abandon()

    def _start(self) -> "_Worker":
        worker = _Worker(self._program)
        self._running.add(worker)
        return worker


class _Worker:
    """One process and this side's end of its socket."""

    def __init__(self, program: str) -> None:
        ours, theirs = socket.socketpair()
        paths = [os.path.abspath(path) for path in sys.path]
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 nothing in it comes from outside
                    [sys.executable, "-I", "-S", "-c", program, *paths],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={},
                )
        except OSError as error:
            ours.close()
            raise WorkerUnavailable(f"no worker could be started: {error.strerror}") from error
        ours.settimeout(DEADLINE_SECONDS)
        self._socket = ours

    def ask(self, request: bytes) -> bytes | int:
        """Return the answer, or the exit status of the process, which has ended.

        Raises:
            WorkerUnavailable: there is no answer within the deadline.
        """
        try:
            send(self._socket, request)
            answer = receive(self._socket)
        except TimeoutError:
            raise WorkerUnavailable(
                f"a worker took more than {DEADLINE_SECONDS:g} seconds"
            ) from None
        except OSError:
            answer = None
        return self._process.wait(DEADLINE_SECONDS) if answer is None else answer

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def abandon(self) -> None:
        """Close this end of the socket of a process that is not a child of this one."""
        self._socket.close()
        self._process.returncode = 0


def _stop(workers: set[_Worker]) -> None:
    while workers:
        workers.pop().stop()
