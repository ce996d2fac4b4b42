"""Jobs: asynchronous jobs, started by one request and fetched by another."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cachetools import TTLCache

from assay.errors import Overloaded

T = TypeVar("T")
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Bounds on jobs. One owner may have half of `max_running` and of `max_bytes`.

    `max_running` and `max_bytes` bound the running jobs. One that its owner has not asked for in
    `idle_seconds` is ended. At most `max_results` finished ones are kept, for `result_seconds`;
    beyond it the one that finished or was fetched longest ago is dropped.
    """

    max_running: int
    max_bytes: int
    idle_seconds: float
    result_seconds: float
    max_results: int


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    """A job, and the timer that ends it when it is not asked for."""

    task: asyncio.Task[T]
    owner: str
    size: int
    timer: asyncio.TimerHandle | None = None
    is_abandoned: bool = False

    def abandon(self) -> None:
        self.is_abandoned = True
        self.task.cancel()

    def wait_for_owner(self, seconds: float) -> None:
        """End the job after so many seconds, instead of when it would have ended."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(seconds, self.abandon)


class Jobs(Generic[T]):
    """The running jobs, and the finished ones whose result can still be fetched.

    Args:
        limits: the bounds.
        clock: monotonic seconds.
    """

    def __init__(self, limits: JobLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._running: dict[str, _Job[T]] = {}
        self._counts: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._finished: TTLCache[str, _Job[T]] = TTLCache(
            limits.max_results, ttl=limits.result_seconds, timer=clock
        )

    def start(self, work: Coroutine[Any, Any, T], *, owner: str, size: int) -> str:
        """Start a job; return the id under which to find it.

        Args:
            work: the job.
            owner: the name of the caller, who alone can find it.
            size: the bytes that it holds while it runs.

        Raises:
            Overloaded: too many jobs, or bytes, are running, of this owner or in all.
        """
        self._finished.expire()
        try:
            self._check_room(owner, size)
        except Overloaded:
            work.close()
            raise
        job_id = secrets.token_hex(16)
        job = self._running[job_id] = _Job(asyncio.create_task(work), owner, size)
        self._count(job, 1)
        job.wait_for_owner(self._limits.idle_seconds)
        job.task.add_done_callback(lambda _: self._finish(job_id))
        return job_id

    def find(self, job_id: str, owner: str) -> asyncio.Task[T] | None:
        """Return the owner's job with that id; None if there is none, or its result has expired."""
        job = self._finished.get(job_id) or self._running.get(job_id)
        if job is None or job.owner != owner:
            return None
        if not job.task.done():
            job.wait_for_owner(self._limits.idle_seconds)
        return job.task

    async def close(self) -> None:
        """Cancel the running jobs."""
        tasks = [job.task for job in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _check_room(self, owner: str, size: int) -> None:
        counts, sizes = self._counts, self._sizes
        for jobs, held, share, text in (
            (counts.total(), sizes.total(), 1, "are running"),
            (counts[owner], sizes[owner], 2, "of this key are running"),
        ):
            if jobs >= self._limits.max_running // share:
                raise Overloaded(f"{jobs} jobs {text}", retry_after=RETRY_SECONDS)
            if held + size > self._limits.max_bytes // share:
                detail = f"jobs of {held} bytes {text}, and {size} more do not fit"
                raise Overloaded(detail, retry_after=RETRY_SECONDS)

    def _count(self, job: _Job[T], sign: int) -> None:
        for counter, amount in ((self._counts, sign), (self._sizes, sign * job.size)):
            counter[job.owner] += amount
            if not counter[job.owner]:
                del counter[job.owner]

    def _finish(self, job_id: str) -> None:
        job = self._running.pop(job_id)
        self._count(job, -1)
        if job.timer is not None:
            job.timer.cancel()
        if not job.is_abandoned:
            self._finished[job_id] = job
