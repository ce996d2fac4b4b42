"""RunEvaluator: evaluates a run's rules when its new data was written, and sends its alerts."""

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from cachetools import LRUCache

from assay.metric_series import RunSeries
from assay.runs.gauges import RunGauges
from assay.types import Clock
from assay_monitors.alerts import AlertChange, AlertMemory, AlertTracker
from assay_monitors.history import RunHistory
from assay_monitors.reports import run_health

logger = logging.getLogger(__name__)

Notify = Callable[[AlertChange], None]
OnDamage = Callable[[Iterable[str]], object]

CPU_SHARE = 0.02
"""Evaluate at most 2 % of the time: after t seconds of work, sleep 49 t."""
MAX_REST_SECONDS = 60.0
"""Rest of all runs after the evaluation of one; the run itself rests longer, if need be."""
MAX_PENDING = 200
"""Runs that may wait for an evaluation; the store keeps as many."""


class RunEvaluator:
    """Evaluator of the rules of runs, one run at a time, on a thread of its own.

    A run is evaluated soon after its data was committed, and at most once in `interval` seconds.
    Evaluation takes at most `CPU_SHARE` of one processor, so a run with many steps is evaluated
    later, and neither a score nor, for more than a minute, another run waits for it. An evaluation
    that fails is logged, counted, and repeated with the run's next commit.

    Args:
        gauges: series that show the result.
        notify: called with each alert, on the evaluator's thread; None for no alerts.
        interval: seconds between two evaluations of one run.
        clock: monotonic seconds.
        series: counters of evaluations.
        alerts: the memory of alerts; None for one of this process.
    """

    def __init__(
        self,
        *,
        gauges: RunGauges,
        notify: Notify | None,
        interval: float,
        clock: Clock,
        series: RunSeries,
        alerts: AlertMemory | None = None,
    ) -> None:
        self.gauges = gauges
        self._notify: Notify = _ignore if notify is None else notify
        self._interval = interval
        self._clock = clock
        self._series = series
        self._alerts: AlertMemory = AlertTracker() if alerts is None else alerts
        self._due: OrderedDict[str, float] = OrderedDict()
        self._evaluated: LRUCache[str, float] = LRUCache(MAX_PENDING)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="assay-evaluating")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_damage: OnDamage = list
        self._task: asyncio.Task[None] | None = None
        self._scheduled = asyncio.Event()
        self._closed = threading.Event()

    def open(self, history: RunHistory, on_damage: OnDamage = list) -> None:
        """Start to evaluate the runs in `history`, in the running event loop.

        Args:
            history: to read from.
            on_damage: called in the event loop with a run of which rows could not be read.
        """
        self._loop = asyncio.get_running_loop()
        self._on_damage = on_damage
        self._task = self._loop.create_task(self._run(history))

    async def close(self) -> None:
        """Stop. A running evaluation ends soon and sends no alerts."""
        self._closed.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._loop = None
        self._pool.shutdown(wait=False, cancel_futures=True)

    def on_commit(self, runs: Iterable[str]) -> None:
        """Schedule the runs whose data was committed. Thread-safe; never waits."""
        loop, names = self._loop, list(runs)
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the server has stopped
                loop.call_soon_threadsafe(self._schedule, names)

    def rename(self, run: str, name: str) -> None:
        """Take in that a run has another name; its alerts go on under that. Never waits."""
        with suppress(RuntimeError):  # the pool is closed: the server stops
            self._pool.submit(self._alerts.rename, run, name)
        self.on_commit((run, name))

    def evaluate(self, history: RunHistory, run: str) -> None:
        """Evaluate a run once, show its health, and send its changed alerts.

        The alerts of a run that is no longer kept end, and its health is no longer shown.

        Raises:
            sqlite3.Error, StoreUnavailableError, ReadTimeoutError: the runs cannot be read now.
        """
        reader = history.until(self._closed.is_set)
        mark = self._alerts.mark()
        health = run_health(reader, run)
        if health is None:
            self.gauges.remove(run)
            changes = self._alerts.forget(run)
        else:
            self.gauges.show(health)
            changes = self._alerts.update(health, mark)
        if self._loop is not None:
            if reader.damaged:
                self._loop.call_soon_threadsafe(self._on_damage, list(reader.damaged))
            for change in changes:
                self._notify(change)

    def _schedule(self, runs: Iterable[str]) -> None:
        now = self._clock()
        for run in runs:
            if run not in self._due:
                latest = self._evaluated.get(run, -self._interval)
                self._due[run] = max(now, latest + self._interval)
            if len(self._due) > MAX_PENDING:
                self._due.popitem(last=False)
                self._series.evaluations.labels("skipped").inc()
        self._scheduled.set()

    async def _run(self, history: RunHistory) -> None:
        loop = asyncio.get_running_loop()
        while True:
            run = await self._next()
            began = self._clock()
            evaluation = loop.run_in_executor(self._pool, self.evaluate, history, run)
            await asyncio.wait({evaluation})
            took = self._clock() - began
            self._count(evaluation.exception(), took)
            rest = rest_after(took)
            self._postpone(run, self._clock() + rest)
            await asyncio.sleep(min(rest, MAX_REST_SECONDS))

    def _postpone(self, run: str, until: float) -> None:
        """Let a run rest, whatever was committed of it in the meantime."""
        self._evaluated[run] = max(self._evaluated[run], until - self._interval)
        if run in self._due:
            self._due[run] = max(self._due[run], until)

    async def _next(self) -> str:
        """Return the run that is due next, once it is due."""
        while True:
            run = min(self._due, key=self._due.__getitem__, default=None)
            wait = None if run is None else self._due[run] - self._clock()
            if run is not None and wait is not None and wait <= 0:
                # Counted from the start: the evaluation may miss commits made while it runs.
                del self._due[run]
                self._evaluated[run] = self._clock()
                return run
            self._scheduled.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._scheduled.wait(), wait)

    def _count(self, error: BaseException | None, took: float) -> None:
        self._series.evaluation_seconds.observe(took)
        self._series.evaluations.labels("ok" if error is None else "failed").inc()
        if error is not None:
            logger.warning("the health of a run could not be evaluated: %r", error)


def _ignore(_: AlertChange) -> None:
    """Send no alert."""


def rest_after(seconds: float) -> float:
    """Return the seconds to rest after an evaluation that took `seconds`."""
    return seconds * (1 / CPU_SHARE - 1)
