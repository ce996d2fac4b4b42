"""RunMonitor: records the scores of training runs in a file, outside the request's path."""

import asyncio
import logging
import sqlite3
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from assay.errors import Overloaded, RunsOff
from assay.metrics import Metrics
from assay.runs.evaluator import RunEvaluator
from assay.runs.gauges import RunGauges
from assay.runs.measures import Item, PolicyResponse, observation, policy_response
from assay.runs.new_runs import NewRuns
from assay.runs.steps import SPLIT, StepFiling, next_arrival
from assay.types import Clock, ItemResult
from assay_monitors.gold import GoldPoint
from assay_monitors.history import RunHistory
from assay_monitors.observations import Window
from assay_monitors.recorder import Counts, Recorder
from assay_monitors.reports import RunHealth
from assay_monitors.retention import Retention
from assay_monitors.store import Edit, RunStore, StoreError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Bounds of the results that wait to be measured: items, and characters of their responses.
MAX_WAITING_ITEMS, MAX_WAITING_CHARACTERS = 8_192, 16 * 2**20
CLOSING_SECONDS = 5.0
# Requests within this time are measured together: waking the thread for each of them would cost
# the event loop more than the measuring itself.
GATHER_SECONDS = 0.1
RETRY_SECONDS = 1.0
EDIT_SECONDS = 10.0
FILE = "runs.db"


class PendingResults(NamedTuple):
    """A request's results that wait to be measured."""

    step: "RunStep"
    model: str
    responses: Sequence[PolicyResponse]
    results: Sequence[ItemResult]
    characters: int


@dataclass(frozen=True, slots=True)
class RunStep:
    """The training run and step that a request belongs to.

    The default split is `train`. Without a step, see `StepFiling`. It is made as its request
    arrives, and `arrival` is the place of that in the order of requests.
    """

    id: str
    step: int | None = None
    split: str | None = None
    arrival: int = field(default_factory=next_arrival, compare=False)


class RunMonitor:
    """Recorder of the results of requests that name their run, and reader of the runs' history.

    Measuring, reading and writing have a thread each: a request only hands over its results.
    Results that do not fit are dropped and counted.

    Args:
        path: the file; None for a temporary one that is deleted with the process.
        metrics: counters of observations.
        clock: monotonic seconds.
        epoch_clock: seconds since the epoch.
        enabled: whether anything is recorded at all.
        evaluator: evaluates runs after a commit; None for no evaluation.
    """

    def __init__(
        self,
        path: Path | None,
        metrics: Metrics,
        clock: Clock,
        *,
        epoch_clock: Clock = time.time,
        enabled: bool = True,
        evaluator: RunEvaluator | None = None,
    ) -> None:
        self._path = path
        self._enabled = enabled
        self._series = metrics.runs
        self._evaluator = evaluator
        self._gauges = evaluator.gauges if evaluator else RunGauges(metrics.runs)
        self._clock = clock
        self._epoch_clock = epoch_clock
        self._new_runs = NewRuns(epoch_clock)
        self._steps = StepFiling(epoch_clock)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._recorder: Recorder | None = None
        self._history: RunHistory | None = None
        self._published = Counts()
        self._measuring = ThreadPoolExecutor(1, thread_name_prefix="assay-measuring")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="assay-reading")
        self._capacity = _Capacity(MAX_WAITING_ITEMS, MAX_WAITING_CHARACTERS)
        self._pending: deque[PendingResults] = deque()
        self._gathering = False
        self._closing = threading.Event()

    async def open(self) -> None:
        """Start to record.

        If the file cannot be used, the reason is logged and runs are kept in a temporary file for
        the life of the process. If that fails too, none are kept.
        """
        if self._enabled:
            await self._run_in(self._reading, self._open)
        if self._evaluator is not None and self._history is not None:
            self._evaluator.open(self._history)

    async def close(self) -> None:
        """Write the waiting results, within five seconds, and stop."""
        if self._evaluator is not None:
            await self._evaluator.close()
        self._closing.set()
        if self._recorder is not None:
            await self._run_in(self._measuring, partial(self._recorder.close, CLOSING_SECONDS))
        self._measuring.shutdown(wait=False)
        self._reading.shutdown(wait=False)
        if self._folder is not None:
            self._folder.cleanup()

    def observe(
        self,
        step: RunStep,
        model: str,
        *,
        candidate: str,
        items: Sequence[Item],
        results: Sequence[ItemResult],
    ) -> None:
        """Hand over a request's results; never waits and never fails.

        Args:
            step: the run and step that the request names.
            model: `name@version`.
            candidate: the field in which the family's candidates vary.
            items: the fields of each item, as the client sent them.
            results: the result of each item.
        """
        if self._recorder is None or self._history is None:
            return
        responses = [policy_response(fields, candidate) for fields in items]
        texts = [response.text for response in responses if response.text is not None]
        characters = sum(map(len, texts))
        if not self._capacity.reserve(len(items), characters):
            self._series.observations.labels("dropped").inc(len(items))
            return
        self._new_runs.add(step.id)
        step = self._in_order(step)
        self._pending.append(PendingResults(step, model, responses, list(results), characters))
        if not self._gathering:
            self._gathering = True
            with suppress(RuntimeError):  # the pool is closed: the server stops
                self._measuring.submit(self._measure, self._recorder, self._history)

    async def read(self, query: Callable[[RunHistory], T]) -> T:
        """Run `query` on the history, off the event loop, and return its result.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the file is busy or cannot be read now.
        """
        if self._history is None:
            raise _off()
        try:
            return await self._run_in(self._reading, partial(query, self._history))
        except sqlite3.Error as error:
            raise _busy("the file in which runs are kept cannot be read now") from error

    async def compute(self, work: Callable[[], T]) -> T:
        """Run `work` off the event loop, on the reading thread, and return its result."""
        return await self._run_in(self._reading, work)

    async def delete(self, run: str) -> bool:
        """Delete a run, with all that was scored for it until now; False where it is not kept.

        A request that names it later begins it anew.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the file cannot be written now.
        """
        is_kept = await self._edit(lambda recorder: recorder.delete(run))
        self._forget(run)
        if self._evaluator is not None:
            self._evaluator.on_commit({run})
        return is_kept

    async def edit(self, run: str, *, name: str | None = None, note: str | None = None) -> Edit:
        """Give a run another name, a note, or both; an empty note removes it.

        A request that names a renamed run by its old name begins a new one.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the file cannot be written now.
        """
        outcome = await self._edit(lambda recorder: recorder.edit(run, name=name, note=note))
        if outcome == "done" and name is not None and name != run:
            self._forget(run)
            if self._evaluator is not None:
                self._evaluator.rename(run, name)
        return outcome

    def record_telemetry(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Record the values that a trainer reports for a step.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the writer cannot keep up.
        """
        if not self._open_recorder().record_telemetry(run, step, values):
            raise _busy("the writer of runs cannot keep up")
        self._name_step(run, step)

    def record_gold(self, run: str, source: str, point: GoldPoint) -> None:
        """Record a gold measurement.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the writer cannot keep up.
        """
        if not self._open_recorder().record_gold(run, source, point):
            raise _busy("the writer of runs cannot keep up")
        self._name_step(run, point.step)

    def publish(self) -> None:
        """Update the Prometheus series from the writer's counts."""
        if self._recorder is None:
            return
        now, last, series = self._recorder.counts, self._published, self._series.observations
        series.labels("written").inc(now.written - last.written)
        series.labels("dropped").inc(now.dropped - last.dropped)
        self._series.commit_failures.inc(now.failed_commits - last.failed_commits)
        self._published = Counts(now.written, now.dropped, now.failed_commits)

    def show(self, health: RunHealth) -> None:
        """Show a run's health as series; see `RunGauges.show`."""
        self._gauges.show(health)

    def _open(self) -> None:
        durable = self._path is not None and self._record_in(self._path)
        self._series.durable.set(durable)
        if not durable:
            try:
                temporary = self._temporary_path()
                if self._record_in(temporary):
                    logger.warning(
                        "runs are kept in the temporary file %s until the server stops: set "
                        "ASSAY_RUNS to a file that can be written, or to off",
                        temporary,
                    )
            except OSError as error:
                logger.error("runs cannot be kept at all: %s", error)

    def _record_in(self, path: Path) -> bool:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            store = RunStore(path, Retention(), self._epoch_clock)
            recorder = Recorder(store, self._clock, on_commit=self._on_commit)
        except (OSError, sqlite3.Error, StoreError) as error:
            logger.error("runs cannot be kept in %s: %s", path, error)
            return False
        recorder.start()
        self._recorder, self._history = recorder, RunHistory(path, self._new_runs.seen)
        return True

    def _on_commit(self, runs: Iterable[str]) -> None:
        self._new_runs.store(runs)
        if self._evaluator is not None:
            self._evaluator.on_commit(runs)

    def _temporary_path(self) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="assay-runs-", ignore_cleanup_errors=True)
        return Path(self._folder.name) / FILE

    def _measure(self, recorder: Recorder, history: RunHistory) -> None:
        self._closing.wait(GATHER_SECONDS)
        self._gathering = False  # a request from here on submits the next measurement
        while self._pending:
            pending = self._pending.popleft()
            try:
                observations = list(map(observation, pending.responses, pending.results))
                window = self._window(pending.step, pending.model, history)
                is_last = self._steps.last(window.run, SPLIT) == window.step
                names_step = is_last and window.split == SPLIT
                recorder.record(window, observations, names_step=names_step)
            finally:
                self._capacity.release(len(pending.results), pending.characters)

    def _window(self, named: RunStep, model: str, history: RunHistory) -> Window:
        """Return the window that the results of a model are added to."""
        step, split = named.step, named.split or SPLIT
        if step is None:
            step = self._steps.step_of(named.id, split, history)
        return Window(named.id, model, split, step)

    def _in_order(self, named: RunStep) -> RunStep:
        """Return the step with the one that was named last, if it names none.

        It is called as results come: when they are measured, a later one may have named another.
        """
        split = named.split or SPLIT
        if named.step is None:
            return replace(named, step=self._steps.last(named.id, split))
        self._steps.name(named.id, split, arrival=named.arrival, step=named.step)
        return named

    def _name_step(self, run: str, step: int) -> None:
        self._new_runs.add(run)
        self._steps.name(run, SPLIT, arrival=next_arrival(), step=step)

    def _forget(self, run: str) -> None:
        self._new_runs.remove(run)
        self._steps.forget(run)

    async def _edit(self, order: Callable[[Recorder], Future[T]]) -> T:
        """Run an order of the recorder after all results that wait to be measured."""
        recorder = self._open_recorder()
        # One thread measures: what waits is handed to the recorder before this is run.
        future = await self._run_in(self._measuring, partial(order, recorder))
        edit = asyncio.wrap_future(future)
        await asyncio.wait({edit}, timeout=EDIT_SECONDS)
        # One that has begun ends within the time that the store waits for a busy file.
        if future.cancel():
            raise _unwritable()
        try:
            return await edit
        except sqlite3.Error as error:
            raise _unwritable() from error

    def _open_recorder(self) -> Recorder:
        if self._recorder is None:
            raise _off()
        return self._recorder

    async def _run_in(self, pool: Executor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


class _Capacity:
    """Thread-safe count of the items and characters that may still wait."""

    def __init__(self, items: int, characters: int) -> None:
        self._items = items
        self._characters = characters
        self._lock = threading.Lock()

    def reserve(self, items: int, characters: int) -> bool:
        with self._lock:
            if items > self._items or characters > self._characters:
                return False
            self._items -= items
            self._characters -= characters
            return True

    def release(self, items: int, characters: int) -> None:
        with self._lock:
            self._items += items
            self._characters += characters


def _off() -> RunsOff:
    return RunsOff("this server keeps no runs", hint="start it with ASSAY_RUNS=FILE")


def _unwritable() -> Overloaded:
    return _busy("the file in which runs are kept cannot be written now")


def _busy(detail: str) -> Overloaded:
    return Overloaded(detail, hint="scores are not affected", retry_after=RETRY_SECONDS)
