"""RunMonitor: records the scores of training runs, outside the request's path."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from cachetools import TTLCache

from assay.errors import RunsOff
from assay.metrics import Metrics
from assay.runs.evaluator import RunEvaluator
from assay.runs.gauges import RunGauges
from assay.runs.measures import Item, observation, policy_response
from assay.runs.new_runs import NewRuns
from assay.runs.owners import Owners
from assay.runs.pending import Capacity, PendingResults
from assay.runs.published import PublishedCounts
from assay.runs.reading import READ_SECONDS, RunReader, busy, storage_error
from assay.runs.sharing import SharedMemory
from assay.runs.steps import SPLIT, RunStep, StepFiling, next_arrival
from assay.runs.storage import Place, RunStorage
from assay.types import Clock, ItemResult
from assay_monitors.admission import ANY_WRITER, Writer
from assay_monitors.database import STORE_ERRORS
from assay_monitors.gold import GoldPoint
from assay_monitors.history import RunHistory
from assay_monitors.observations import Window
from assay_monitors.recorder import Recorder
from assay_monitors.reports import RunHealth
from assay_monitors.retention import Retention
from assay_monitors.store import Edit

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Bounds of the results that wait to be measured: items, and characters of their responses.
MAX_WAITING_ITEMS, MAX_WAITING_CHARACTERS = 8_192, 16 * 2**20
CLOSING_SECONDS = 5.0
# Requests within this time are measured together: waking the thread for each of them would cost
# the event loop more than the measuring itself.
GATHER_SECONDS = 0.1
EDIT_SECONDS = 10.0
BEGUN_SECONDS = 10.0  # an edit that has begun ends sooner, unless a database hangs
UNWRITABLE = "the file in which runs are kept cannot be written now"
# A run is searched for damaged rows once in this time, however often it is read.
SEARCH_SECONDS = 60.0

RETENTION = Retention()


class RunMonitor:
    """Recorder of the results of requests that name their run, and reader of the runs' history.

    Measuring and writing have a thread each, reading has threads of its own: a request only hands
    over its results. Results that do not fit are dropped and counted.

    Args:
        place: the file, or a database that replicas share; None for a temporary file that is
            deleted with the process.
        metrics: counters of observations.
        clock: monotonic seconds.
        epoch_clock: seconds since the epoch.
        enabled: whether anything is recorded at all.
        evaluator: evaluates runs after a commit; None for no evaluation.
        retention: the limits of the file.
        read_seconds: until a reader ends.
    """

    def __init__(
        self,
        place: Place | None,
        metrics: Metrics,
        clock: Clock,
        *,
        epoch_clock: Clock = time.time,
        enabled: bool = True,
        evaluator: RunEvaluator | None = None,
        retention: Retention = RETENTION,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._enabled = enabled
        self._series = metrics.runs
        self._evaluator = evaluator
        self._gauges = evaluator.gauges if evaluator else RunGauges(metrics.runs)
        self._clock = clock
        self._read_seconds = read_seconds
        self._new_runs = NewRuns(epoch_clock)
        self._owners = Owners(retention, metrics.runs, epoch_clock)
        self._storage = RunStorage(place, retention, epoch_clock)
        self._steps = StepFiling(epoch_clock, is_shared=self._storage.is_shared)
        self._memory: SharedMemory | None = None
        self._recorder: Recorder | None = None
        self._history: RunHistory | None = None
        self._reader: RunReader | None = None
        self._searched: TTLCache[str, bool] = TTLCache(retention.runs, SEARCH_SECONDS)
        self._published = PublishedCounts(metrics.runs)
        self._measuring = ThreadPoolExecutor(1, thread_name_prefix="assay-measuring")
        self._capacity = Capacity(MAX_WAITING_ITEMS, MAX_WAITING_CHARACTERS)
        self._pending: deque[PendingResults] = deque()
        self._gathering = False
        self._closing = threading.Event()

    async def open(self) -> None:
        """Start to record.

        If the file cannot be used, the reason is logged and runs are kept in a temporary file for
        the life of the process. If that fails too, none are kept. A database that cannot be reached
        is used once it can be.
        """
        if self._enabled:
            await self._measure_next(self._open, None)
        if self._evaluator is not None and self._history is not None:
            self._evaluator.open(self._history, self._set_aside)
        if self._storage.is_shared:
            self._memory = SharedMemory(self._owners, self._new_runs, self._drop_deleted)
            self._memory.open(self._open_reader())

    async def close(self) -> None:
        """Write the waiting results, within five seconds, and stop."""
        if self._memory is not None:
            self._memory.close()
        if self._evaluator is not None:
            await self._evaluator.close()
        self._closing.set()
        if self._recorder is not None:
            with suppress(TimeoutError):  # the thread reads a database that hangs
                await self._measure_next(partial(self._recorder.close, CLOSING_SECONDS))
        self._measuring.shutdown(wait=False)
        if self._reader is not None:
            self._reader.close()
        self._storage.close()

    def observe(
        self,
        step: RunStep,
        model: str,
        *,
        candidate: str,
        items: Sequence[Item],
        results: Sequence[ItemResult],
        writer: Writer = ANY_WRITER,
    ) -> None:
        """Hand over a request's results; never waits and never fails.

        Results for a run that is not the writer's are counted and not recorded.

        Args:
            step: the run and step that the request names.
            model: `name@version`.
            candidate: the field in which the family's candidates vary.
            items: the fields of each item, as the client sent them.
            results: the result of each item.
            writer: the sender of the request.
        """
        if self._recorder is None or self._history is None:
            return
        responses = [policy_response(fields, candidate) for fields in items]
        texts = [response.text for response in responses if response.text is not None]
        characters = sum(map(len, texts))
        if not self._capacity.reserve(len(items), characters):
            self._series.observations.labels("dropped").inc(len(items))
            return
        if not self._owners.is_known_as_foreign(step.id, writer):
            self._new_runs.add(step.id)
            step = self._in_order(step)
        pending = PendingResults(step, model, responses, list(results), characters, writer)
        self._pending.append(pending)
        if not self._gathering:
            self._gathering = True
            with suppress(RuntimeError):  # the pool is closed: the server stops
                self._measuring.submit(self._measure, self._recorder, self._history)

    async def read(self, query: Callable[[RunHistory], T]) -> T:
        """Return the result of a short query; see `RunReader.read`.

        Raises:
            RunsOff: nothing is recorded.
        """
        return await self._open_reader().read(query)

    async def report(self, query: Callable[[RunHistory], T], owner: str) -> T:
        """Return the result of a query that may read a whole run; see `RunReader.report`.

        Raises:
            RunsOff: nothing is recorded.
        """
        return await self._open_reader().report(query, owner)

    async def check_writer(self, run: str, writer: Writer, source: str | None = None) -> None:
        """Check that a writer may record telemetry, or gold of a source; see `Owners.check`.

        Raises:
            RunsOff: nothing is recorded.
        """
        await self._owners.check(self._open_reader(), run, writer, source)

    async def delete(self, run: str, writer: Writer = ANY_WRITER) -> Edit:
        """Delete a run, with all that was scored for it until now.

        A request that names it later begins it anew.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the file cannot be written now.
        """
        outcome = await self._edit(lambda recorder: recorder.delete(run, writer))
        if outcome != "forbidden":
            self._drop(run)
        return outcome

    async def edit(
        self,
        run: str,
        *,
        name: str | None = None,
        note: str | None = None,
        pinned: bool | None = None,
        writer: Writer = ANY_WRITER,
    ) -> Edit:
        """Give a run another name, a note, pin it or unpin it; an empty note removes the note.

        A request that names a renamed run by its old name begins a new one.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the file cannot be written now.
        """
        outcome = await self._edit(
            lambda recorder: recorder.edit(run, name=name, note=note, pinned=pinned, writer=writer)
        )
        if outcome == "done" and name is not None and name != run:
            self._forget(run)
            if self._evaluator is not None:
                self._evaluator.rename(run, name)
        return outcome

    def record_telemetry(
        self, run: str, step: int, values: Mapping[str, float], writer: Writer = ANY_WRITER
    ) -> None:
        """Record the values that a trainer reports for a step.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the recorder cannot keep up.
        """
        recorder, arrival = self._open_recorder(), next_arrival()
        named_at = self._steps.named_at(arrival)
        if not recorder.record_telemetry(run, step, values, writer, named_at):
            raise busy("the writer of runs cannot keep up")
        self._name_step(run, step, arrival)

    def record_gold(
        self, run: str, source: str, point: GoldPoint, writer: Writer = ANY_WRITER
    ) -> None:
        """Record a gold measurement.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the recorder cannot keep up.
        """
        recorder, arrival = self._open_recorder(), next_arrival()
        named_at = self._steps.named_at(arrival)
        if not recorder.record_gold(run, source, point, writer, named_at):
            raise busy("the writer of runs cannot keep up")
        self._name_step(run, point.step, arrival)

    def publish(self) -> None:
        """Update the Prometheus series from the recorder's counts."""
        if self._recorder is not None:
            self._published.update(self._recorder, is_permanent=self._storage.is_permanent)

    def show(self, health: RunHealth) -> None:
        """Show a run's health as series; see `RunGauges.show`."""
        self._gauges.show(health)

    def _open(self) -> None:
        store = self._storage.open()
        self._series.durable.set(self._storage.is_permanent)
        if store is None or self._storage.place is None:
            return
        self._owners.add(store.owners())
        self._recorder = Recorder(store, self._clock, on_commit=self._on_commit)
        self._recorder.start()
        self._history = RunHistory(self._storage.place, self._new_runs.seen)
        self._reader = RunReader(self._history, self._set_aside, seconds=self._read_seconds)

    def _on_commit(self, owners: Mapping[str, str]) -> None:
        self._new_runs.store(owners)
        self._owners.add(owners)
        if self._evaluator is not None:
            self._evaluator.on_commit(owners)

    def _set_aside(self, runs: Iterable[str]) -> None:
        """Let the recorder set aside what cannot be read of these runs."""
        for run in runs:
            if run not in self._searched:
                self._searched[run] = True
                self._open_recorder().set_aside_damaged(run)

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
                recorder.record(
                    window,
                    observations,
                    names_step=names_step,
                    named_at=self._steps.named_at(pending.step.arrival),
                    writer=pending.writer,
                )
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
            return replace(named, step=self._steps.recent(named.id, split))
        self._steps.name(named.id, split, arrival=named.arrival, step=named.step)
        return named

    def _name_step(self, run: str, step: int, arrival: int) -> None:
        self._new_runs.add(run)
        self._steps.name(run, SPLIT, arrival=arrival, step=step)

    def _drop_deleted(self, run: str) -> None:
        """Take in that another server has deleted or renamed a run."""
        self._open_recorder().forget(run)
        self._drop(run)

    def _drop(self, run: str) -> None:
        self._forget(run)
        if self._evaluator is not None:
            self._evaluator.on_commit({run})

    def _forget(self, run: str) -> None:
        self._new_runs.remove(run)
        self._owners.remove(run)
        self._steps.forget(run)

    async def _edit(self, order: Callable[[Recorder], Future[T]]) -> T:
        """Run an order of the recorder after all results that wait to be measured."""
        try:
            # One thread measures: what waits is handed to the recorder before this is run.
            future = await self._measure_next(partial(order, self._open_recorder()))
            edit = asyncio.wrap_future(future)
            await asyncio.wait({edit}, timeout=EDIT_SECONDS)
            if future.cancel():
                raise busy(UNWRITABLE)
            async with asyncio.timeout(BEGUN_SECONDS):
                return await edit
        except TimeoutError:
            raise busy(UNWRITABLE) from None
        except STORE_ERRORS as error:
            logger.warning("a run cannot be changed: %s", error)
            raise storage_error(error, "written") from error

    async def _measure_next(self, work: Callable[[], T], seconds: float | None = EDIT_SECONDS) -> T:
        """Run `work` on the thread that measures, after what waits there; raise `TimeoutError`."""
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().run_in_executor(self._measuring, work)

    def _open_recorder(self) -> Recorder:
        if self._recorder is None:
            raise _off()
        return self._recorder

    def _open_reader(self) -> RunReader:
        if self._reader is None:
            raise _off()
        return self._reader


def _off() -> RunsOff:
    return RunsOff("this server keeps no runs", hint="start it with ASSAY_RUNS=FILE")
