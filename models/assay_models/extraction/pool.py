"""Processes that parse, as few as there are texts at once: bounded, killed, replaced."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import weakref

from assay_models.extraction.languages import Candidates
from assay_models.extraction.verdict import Verdict
from assay_models.extraction.worker import pack, receive, send, unpack

WORKERS = 2
DEADLINE = 30.0
"""Seconds for one text, by the clock on the wall. Its CPU time is bounded in the worker: who waits
longer waits for the machine."""

_FATAL = frozenset((signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV))
_ATTEMPTS = 2
_PROGRAM = """
import sys
sys.path[:] = sys.argv[1:]
from assay_models.extraction.worker import main
main()
"""


class ParserUnavailable(Exception):
    """A text could not be parsed for a reason that is not in the text: no process could be
    started, one was killed from outside, or the machine is too busy. Another try may succeed."""


class Parsers:
    """`judge` in worker processes, for any number of threads at once.

    A worker starts with the first text that finds none idle, and parses one text at a time.
    `close`, the end of this object or the end of the process stops them; in a forked child the
    object starts workers of its own.
    """

    def __init__(self, workers: int = WORKERS) -> None:
        self._workers = workers
        self._sets: dict[int, _Workers] = {}

    def judge(self, code: str, candidates: Candidates) -> Verdict:
        """What the parsers say of a text (see `syntax.judge`).

        A text on which a worker dies of too much work or of a fault in a parser is beyond the
        parser's limits; of faults other than too much work it must have died twice.

        Raises:
            ParserUnavailable: no fault of the text.
        """
        if not candidates.languages:
            return Verdict("syntax_error")
        request = pack(code, candidates)
        workers, status = self._of_this_process(), 0
        for attempt in range(_ATTEMPTS):
            answer = workers.ask(request)
            if isinstance(answer, bytes):
                return unpack(answer)
            status = answer
            if status == -signal.SIGPROF or (attempt and -status in _FATAL):
                return Verdict("parser_limit", candidates.sure)
        raise ParserUnavailable(f"the parser's process ended with status {status}")

    def close(self) -> None:
        """Stop the workers. Texts that come later start new ones."""
        workers = self._sets.pop(os.getpid(), None)
        if workers is not None:
            workers.finish()

    def workers(self) -> "list[Worker]":
        """The processes that run now."""
        own = self._sets.get(os.getpid())
        return [] if own is None else list(own.running)

    def _of_this_process(self) -> "_Workers":
        # Never a lock of the parent's: the thread that held it does not exist in a forked child.
        mine = os.getpid()
        if mine not in self._sets:
            for process in [number for number in self._sets if number != mine]:
                self._sets.pop(process).forget()
            self._sets.setdefault(mine, _Workers(self._workers))
        return self._sets[mine]


class _Workers:
    """The workers of one process; a place without one is None."""

    def __init__(self, number: int) -> None:
        self.running: set[Worker] = set()
        self._places: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(number):
            self._places.put(None)
        self.finish = weakref.finalize(self, _stop, self.running)

    def ask(self, request: bytes) -> bytes | int:
        """The answer, or the exit status of the worker that died of it."""
        try:
            worker = self._places.get(timeout=DEADLINE)
        except queue.Empty:
            raise ParserUnavailable(f"no parser was free for {DEADLINE:g} seconds") from None
        kept = None
        try:
            if not self.finish.alive:
                raise ParserUnavailable("the parsers were closed")
            worker = worker or self._started()
            answer = worker.ask(request)
            kept = worker if isinstance(answer, bytes) else None
            return answer
        finally:
            if worker is not None and kept is None:
                self.running.discard(worker)
                worker.stop()
            self._places.put(kept)

    def forget(self) -> None:
        """Let go of the parent's workers, in a forked child."""
        self.finish.detach()
        for worker in self.running:
            worker.forget()

    def _started(self) -> "Worker":
        worker = Worker()
        self.running.add(worker)
        return worker


class Worker:
    """One process and our end of its socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        paths = [os.path.abspath(path) for path in sys.path]
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 nothing in it comes from outside
                    [sys.executable, "-I", "-S", "-c", _PROGRAM, *paths],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={},
                )
        except OSError as error:
            ours.close()
            raise ParserUnavailable(f"no parser could be started: {error.strerror}") from error
        ours.settimeout(DEADLINE)
        self.pid = self._process.pid
        self._socket = ours

    def ask(self, request: bytes) -> bytes | int:
        """The answer, or the exit status of the process, which has ended.

        Raises:
            ParserUnavailable: no answer within the deadline.
        """
        try:
            send(self._socket, request)
            answer = receive(self._socket)
        except TimeoutError:
            raise ParserUnavailable(f"a parser took more than {DEADLINE:g} seconds") from None
        except OSError:
            answer = None
        return self._process.wait(DEADLINE) if answer is None else answer

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Close our end without a word to a process that is another's child."""
        self._socket.close()
        self._process.returncode = 0


def _stop(workers: set[Worker]) -> None:
    while workers:
        workers.pop().stop()
