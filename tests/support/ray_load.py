"""Steady load of real clients, and the count of their successes and failures."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from assay_client import Client
from assay_client.errors import AssayError

WORDS = "word " * 400


@dataclass
class Load:
    """The counts of a load that is running.

    Attributes:
        scored: calls that returned a score.
        failures: the errors of the others.
    """

    scored: int = 0
    failures: list[AssayError] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for_more(self, calls: int, seconds: float = 300) -> None:
        """Wait until that many further calls have ended."""
        with self._changed:
            wanted = self._ended + calls
            assert self._changed.wait_for(lambda: self._ended >= wanted, seconds)

    @property
    def _ended(self) -> int:
        return self.scored + len(self.failures)

    def count(self, failure: AssayError | None) -> None:
        """Count a call that has ended."""
        with self._changed:
            if failure is None:
                self.scored += 1
            else:
                self.failures.append(failure)
            self._changed.notify_all()


@contextmanager
def steady_load(
    url: str, *, threads: int, max_retries: int, items: int = 1, name: str = ""
) -> Iterator[Load]:
    """Score from several threads, each with a client of its own, until the end of the block.

    No two calls share an item, so that no cache answers.
    """
    load, stop = Load(), threading.Event()

    def work(thread: int) -> None:
        with Client(url, max_retries=max_retries, timeout=60) as client:
            number = 0
            while not stop.is_set():
                number += 1
                prompt = f"{WORDS} {name} {thread} {number}"
                rows = [{"prompt": prompt, "response": f"{WORDS} {n}"} for n in range(items)]
                try:
                    client.score("reference", rows)
                except AssayError as error:
                    load.count(error)
                else:
                    load.count(None)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield load
    finally:
        stop.set()
        for worker in workers:
            worker.join()
