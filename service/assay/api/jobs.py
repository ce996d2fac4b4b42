"""Jobs: asynchronous jobs, started by one request and fetched by another."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from cachetools import TTLCache

from assay.errors import Overloaded

T = TypeVar("T")


class Jobs(Generic[T]):
    """The running jobs, and the finished ones whose result can still be fetched.

    Args:
        max_running: jobs that run at a time; another one is refused.
        result_seconds: seconds for which a finished job can be fetched.
        max_results: finished jobs that are kept; beyond it the one that finished or was fetched
            longest ago is dropped.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        max_running: int,
        result_seconds: float,
        max_results: int,
        clock: Callable[[], float],
    ) -> None:
        self._max_running = max_running
        self._running: dict[str, asyncio.Task[T]] = {}
        self._finished: TTLCache[str, asyncio.Task[T]] = TTLCache(
            max_results, ttl=result_seconds, timer=clock
        )

    def start(self, work: Coroutine[Any, Any, T]) -> str:
        """Start a job; return the id under which to find it.

        Raises:
            Overloaded: `max_running` jobs are running.
        """
        self._finished.expire()
        if len(self._running) >= self._max_running:
            work.close()
            raise Overloaded(f"{self._max_running} jobs are running", retry_after=1.0)
        job_id = secrets.token_hex(16)
        task = self._running[job_id] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._finish(job_id))
        return job_id

    def find(self, job_id: str) -> asyncio.Task[T] | None:
        """Return the job with that id; None if there is none, or its result has expired."""
        return self._finished.get(job_id) or self._running.get(job_id)

    async def close(self) -> None:
        """Cancel the running jobs."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finish(self, job_id: str) -> None:
        self._finished[job_id] = self._running.pop(job_id)
