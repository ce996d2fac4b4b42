"""Work that is asked for now and fetched later, by those whose protocol wants it so."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from assay.errors import Overloaded

T = TypeVar("T")


class Jobs(Generic[T]):
    """Running jobs, and those that are done and may still be fetched.

    Args:
        most: that run at a time; one more is refused.
        keep: seconds for which the outcome of a job can be fetched, if not too many are done since.
        kept: outcomes that are kept; the oldest goes first.
        clock: monotonic seconds.
    """

    def __init__(self, most: int, keep: float, kept: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._keep = keep
        self._kept = kept
        self._clock = clock
        self._running: dict[str, asyncio.Task[T]] = {}
        self._done: OrderedDict[str, tuple[float, asyncio.Task[T]]] = OrderedDict()

    def start(self, work: Coroutine[Any, Any, T]) -> str:
        """Begin it; the name to fetch it by.

        Raises:
            Overloaded: too many run already.
        """
        self._forget()
        if len(self._running) >= self._most:
            work.close()
            raise Overloaded(f"{self._most} jobs are running", retry_after=1.0)
        name = secrets.token_hex(16)
        task = self._running[name] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._finish(name))
        return name

    def find(self, name: str) -> asyncio.Task[T] | None:
        """The job of that name; None if there never was one, or it is long done."""
        self._forget()
        _, task = self._done.get(name, (0.0, None))
        return self._running.get(name, task)

    async def close(self) -> None:
        """Stop what runs."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finish(self, name: str) -> None:
        self._done[name] = self._clock(), self._running.pop(name)

    def _forget(self) -> None:
        latest = self._clock() - self._keep
        while self._done:
            when, _ = next(iter(self._done.values()))
            if when >= latest and len(self._done) <= self._kept:
                return
            self._done.popitem(last=False)
