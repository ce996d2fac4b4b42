"""RunWatcher: looks at a run's rules when something new of it was written, and tells of alerts."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from assay.gauges import RunGauges
from assay.metrics import RunSeries
from assay_monitors.alerts import AlertBook, AlertChange
from assay_monitors.history import RunHistory
from assay_monitors.reports import run_health

logger = logging.getLogger(__name__)

Clock = Callable[[], float]
Tell = Callable[[AlertChange], None]

# Of one processor's time, what looking may take: after a look of a second it rests for 49.
SHARE = 0.02
# Runs that may wait for a look; as many as are kept.
WAITING = 200


class RunWatcher:
    """Looks at runs, one at a time, on a thread of its own.

    A run is looked at soon after something of it was committed, and not again within `interval`
    seconds, however much comes in. Looking takes at most a fiftieth of one processor: a look that
    was long is followed by a rest that is longer. So a run with many steps is seen later, and no
    score waits for it. A look that fails is logged, counted, and made again with the run's next
    commit.

    Args:
        gauges: shown what was seen.
        tell: told of each alert, on the watcher's thread.
        interval: seconds between two looks at one run.
        clock: monotonic seconds.
        series: where counts go.
    """

    def __init__(
        self,
        gauges: RunGauges,
        tell: Tell | None,
        interval: float,
        clock: Clock,
        series: RunSeries,
    ) -> None:
        self.gauges = gauges
        self._tell = tell
        self._interval = interval
        self._clock = clock
        self._series = series
        self._book = AlertBook()
        self._due: OrderedDict[str, float] = OrderedDict()
        self._looked: OrderedDict[str, float] = OrderedDict()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="assay-watching")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def open(self, history: RunHistory) -> None:
        """Begin to watch what is read from `history`, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._watch(history))

    async def close(self) -> None:
        """Stop. A look under way is left to itself, and what it would tell is not told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._loop = None
        self._pool.shutdown(wait=False, cancel_futures=True)

    def written(self, runs: Iterable[str]) -> None:
        """Say that something of these runs was committed; from any thread, never waits."""
        loop, names = self._loop, list(runs)
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the server has stopped
                loop.call_soon_threadsafe(self._note, names)

    def look(self, history: RunHistory, run: str) -> None:
        """Look at a run once, show what is seen, and tell what has changed.

        Raises:
            sqlite3.Error, ValueError, zlib.error: the file cannot be read now.
        """
        health = run_health(history, run)
        if health is None:
            return
        self.gauges.show(health)
        changes = self._book.changes(health)
        if self._tell is not None and self._loop is not None:
            for change in changes:
                self._tell(change)

    def _note(self, runs: Iterable[str]) -> None:
        now = self._clock()
        for run in runs:
            if run not in self._due:
                self._due[run] = max(now, self._looked.get(run, -self._interval) + self._interval)
            if len(self._due) > WAITING:
                self._due.popitem(last=False)
                self._series.looks.labels("skipped").inc()
        self._news.set()

    async def _watch(self, history: RunHistory) -> None:
        loop = asyncio.get_running_loop()
        while True:
            run = await self._next()
            began = self._clock()
            look = loop.run_in_executor(self._pool, self.look, history, run)
            await asyncio.wait({look})
            took = self._clock() - began
            self._count(look.exception(), took)
            await asyncio.sleep(rest_after(took))

    async def _next(self) -> str:
        """The run whose turn it is, once it is."""
        while True:
            run = min(self._due, key=self._due.__getitem__, default=None)
            wait = None if run is None else self._due[run] - self._clock()
            if run is not None and wait is not None and wait <= 0:
                self._begin(run)
                return run
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), wait)

    def _begin(self, run: str) -> None:
        # From the beginning of a look: what is committed meanwhile may be too late for it.
        del self._due[run]
        self._looked[run] = self._clock()
        self._looked.move_to_end(run)
        if len(self._looked) > WAITING:
            self._looked.popitem(last=False)

    def _count(self, error: BaseException | None, took: float) -> None:
        self._series.look_seconds.observe(took)
        self._series.looks.labels("ok" if error is None else "failed").inc()
        if error is not None:
            logger.warning("the health of a run could not be looked at: %r", error)


def rest_after(seconds: float) -> float:
    """How long to rest after a look that took so long."""
    return seconds * (1 / SHARE - 1)
