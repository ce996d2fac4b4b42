"""RunMonitor: what requests tell of training runs goes into a file, off their way."""

import asyncio
import logging
import sqlite3
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from assay.errors import Overloaded, RunsOff
from assay.metrics import Metrics
from assay.runs.evaluator import RunEvaluator
from assay.runs.gauges import RunGauges
from assay.types import ItemResult
from assay_monitors.gold import GoldPoint
from assay_monitors.history import RunHistory
from assay_monitors.observations import Observation, Window, measured
from assay_monitors.recorder import Counts, Recorder
from assay_monitors.reports import RunHealth
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore, StoreError

logger = logging.getLogger(__name__)

T = TypeVar("T")
Clock = Callable[[], float]
Item = Mapping[str, Any]

# What may wait to be measured: items, and characters of their responses.
WAITING_ITEMS, WAITING_CHARACTERS = 8_192, 16 * 2**20
CLOSING_SECONDS = 5.0
# Requests of so long are measured together: to wake a thread for each would cost the event loop
# more than all the measuring.
GATHER_SECONDS = 0.1
RETRY_SECONDS = 1.0
FILE = "runs.db"
SPLIT = "train"
# Without a score, because there was nothing to score.
INVALID = frozenset(("invalid_code", "no_claims"))
UNSURE = "low_confidence"


class Written(NamedTuple):
    """What the policy wrote, as an item tells it: the text, calls of tools in it, its tokens."""

    text: str | None
    calls: int | None = None
    tokens: int | None = None


class Handed(NamedTuple):
    """A request's results on their way to the writer."""

    window: Window
    written: Sequence[Written]
    results: Sequence[ItemResult]
    characters: int


@dataclass(frozen=True, slots=True)
class RunStep:
    """The training run that a request belongs to. Without a step it is step 0, without a split
    `train`.
    """

    id: str
    step: int | None = None
    split: str | None = None

    def window(self, model: str) -> Window:
        """Where the results of a model are added up."""
        return Window(self.id, model, self.split or SPLIT, self.step or 0)


class RunMonitor:
    """Records the results of requests that name their run, and reads what is known of runs.

    Measuring and reading have a thread each, writing a third: a request only hands over its
    results. What does not fit is dropped and counted.

    Args:
        path: of the file; None for one that goes with the process.
        metrics: where counts go.
        clock: monotonic seconds.
        enabled: whether anything is recorded at all.
        evaluator: looks at runs that something new is known of; None where nobody does.
    """

    def __init__(
        self,
        path: Path | None,
        metrics: Metrics,
        clock: Clock,
        enabled: bool = True,
        evaluator: RunEvaluator | None = None,
    ) -> None:
        self._path = path
        self._enabled = enabled
        self._series = metrics.runs
        self._evaluator = evaluator
        self._gauges = evaluator.gauges if evaluator else RunGauges(metrics.runs)
        self._clock = clock
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._recorder: Recorder | None = None
        self._history: RunHistory | None = None
        self._published = Counts()
        self._measuring = ThreadPoolExecutor(1, thread_name_prefix="assay-measuring")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="assay-reading")
        self._room = _Room(WAITING_ITEMS, WAITING_CHARACTERS)
        self._handed: deque[Handed] = deque()
        self._gathering = False
        self._closing = threading.Event()

    async def open(self) -> None:
        """Begin to record. Where the file cannot be used, that is logged, and runs are kept for as
        long as the process lives; where no file can, none are.
        """
        if self._enabled:
            await self._in(self._reading, self._open)
        if self._evaluator is not None and self._history is not None:
            self._evaluator.open(self._history)

    async def close(self) -> None:
        """Write what waits, for five seconds at most, and stop."""
        if self._evaluator is not None:
            await self._evaluator.close()
        self._closing.set()
        if self._recorder is not None:
            await self._in(self._measuring, partial(self._recorder.close, CLOSING_SECONDS))
        self._measuring.shutdown(wait=False)
        self._reading.shutdown(wait=False)
        if self._folder is not None:
            self._folder.cleanup()

    def observe(
        self,
        step: RunStep,
        model: str,
        candidate: str,
        items: Sequence[Item],
        results: Sequence[ItemResult],
    ) -> None:
        """Hand over a request's results; never waits and never fails.

        Args:
            step: of the run.
            model: `name@version`.
            candidate: the field in which the family's candidates vary.
            items: as they were sent.
            results: one for each item.
        """
        if self._recorder is None:
            return
        written = [_written(fields, candidate) for fields in items]
        characters = sum([len(one.text) for one in written if one.text is not None])
        if not self._room.take(len(items), characters):
            self._series.observations.labels("dropped").inc(len(items))
            return
        self._handed.append(Handed(step.window(model), written, list(results), characters))
        if not self._gathering:
            self._gathering = True
            with suppress(RuntimeError):  # the pool is closed: the server stops
                self._measuring.submit(self._measure, self._recorder)

    async def read(self, work: Callable[[RunHistory], T]) -> T:
        """What `work` makes of the history, off the event loop.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the file is busy or cannot be read now.
        """
        if self._history is None:
            raise _off()
        try:
            return await self._in(self._reading, partial(work, self._history))
        except sqlite3.Error as error:
            raise _busy("the file in which runs are kept cannot be read now") from error

    async def work(self, work: Callable[[], T]) -> T:
        """What `work` computes, off the event loop and off the way of requests."""
        return await self._in(self._reading, work)

    def record_telemetry(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Record what the trainer tells of a step.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the writer cannot keep up.
        """
        if not self._open_recorder().record_telemetry(run, step, values):
            raise _busy("the writer of runs cannot keep up")

    def record_gold(self, run: str, source: str, point: GoldPoint) -> None:
        """Record a gold measurement.

        Raises:
            RunsOff: nothing is recorded.
            Overloaded: the writer cannot keep up.
        """
        if not self._open_recorder().record_gold(run, source, point):
            raise _busy("the writer of runs cannot keep up")

    def publish(self) -> None:
        """Bring the series up to the writer's counts."""
        if self._recorder is None:
            return
        now, last, series = self._recorder.counts, self._published, self._series.observations
        series.labels("written").inc(now.written - last.written)
        series.labels("dropped").inc(now.dropped - last.dropped)
        self._series.commit_failures.inc(now.failed_commits - last.failed_commits)
        self._published = Counts(now.written, now.dropped, now.failed_commits)

    def show(self, health: RunHealth) -> None:
        """Show a run's health as series, in the place of the run not looked at for longest."""
        self._gauges.show(health)

    def _open(self) -> None:
        durable = self._path is not None and self._record_in(self._path)
        self._series.durable.set(durable)
        if not durable:
            try:
                self._record_in(self._temporary())
            except OSError as error:
                logger.error("runs cannot be kept at all: %s", error)

    def _record_in(self, path: Path) -> bool:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            on_commit = self._evaluator.on_commit if self._evaluator else None
            store = RunStore(path, Retention(), time.time)
            recorder = Recorder(store, self._clock, on_commit=on_commit)
        except (OSError, sqlite3.Error, StoreError) as error:
            logger.error("runs cannot be kept in %s: %s", path, error)
            return False
        recorder.start()
        self._recorder, self._history = recorder, RunHistory(path)
        return True

    def _temporary(self) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="assay-runs-", ignore_cleanup_errors=True)
        return Path(self._folder.name) / FILE

    def _measure(self, recorder: Recorder) -> None:
        self._closing.wait(GATHER_SECONDS)
        self._gathering = False  # whoever comes from here on asks for another turn
        while self._handed:
            one = self._handed.popleft()
            try:
                recorder.record(one.window, list(map(observation, one.written, one.results)))
            finally:
                self._room.give_back(len(one.results), one.characters)

    def _open_recorder(self) -> Recorder:
        if self._recorder is None:
            raise _off()
        return self._recorder

    async def _in(self, pool: Executor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


class _Room:
    """Items and characters that may wait, counted by several threads."""

    def __init__(self, items: int, characters: int) -> None:
        self._items = items
        self._characters = characters
        self._lock = threading.Lock()

    def take(self, items: int, characters: int) -> bool:
        with self._lock:
            if items > self._items or characters > self._characters:
                return False
            self._items -= items
            self._characters -= characters
            return True

    def give_back(self, items: int, characters: int) -> None:
        with self._lock:
            self._items += items
            self._characters += characters


def observation(response: Written, result: ItemResult) -> Observation:
    """What an item's result tells of its run; of the response only its measures."""
    scored = result.status == "ok"
    measures = None if response.text is None else measured(response.text)
    return Observation(
        score=result.score if scored else None,
        channels=result.channels,
        labels=_labels(result.details),
        flags=_flags(result),
        group=result.group,
        source=result.source,
        invalid=_invalid(result),
        characters=measures and measures.characters,
        tokens=response.tokens,
        script=measures and measures.script,
        calls=response.calls,
    )


def _invalid(result: ItemResult) -> bool:
    return "invalid_code" in result.flags or (
        result.error is not None and result.error.code in INVALID
    )


def _flags(result: ItemResult) -> tuple[str, ...]:
    """The flags of a result, and why it has no score."""
    if result.error is None:
        return tuple(result.flags)
    return (*result.flags, f"error:{result.error.code}")


def _labels(details: Mapping[str, Any]) -> dict[str, int]:
    """The verdict on a pair, or one for each claim of an answer. One that the checker itself is
    not sure of is under none of its labels.
    """
    claims = details.get("claims")
    verdicts = claims if isinstance(claims, list) else [details]
    return Counter(
        [
            UNSURE if one.get("status") == UNSURE else one["label"]
            for one in verdicts
            if isinstance(one.get("label"), str)
        ]
    )


def _written(fields: Item, candidate: str) -> Written:
    text = _response(fields, candidate)
    return Written(text, _calls(fields), fields.get("response_tokens"))


def _calls(fields: Item) -> int | None:
    """How many calls the item tells; a search that is only said to have been made is one."""
    calls, searched = fields.get("calls"), fields.get("searched")
    if calls is None and isinstance(searched, bool):
        return int(searched)
    return calls


def _response(fields: Item, candidate: str) -> str | None:
    """What the policy wrote: the response, the last turn, or the field that candidates vary in."""
    turns = fields.get("messages")
    last = turns[-1].get("content") if turns and isinstance(turns, Sequence) else None
    texts = (fields.get("response"), fields.get(candidate), last)
    return next((text for text in texts if isinstance(text, str)), None)


def _off() -> RunsOff:
    return RunsOff("this server keeps no runs", hint="start it with ASSAY_RUNS=FILE")


def _busy(detail: str) -> Overloaded:
    return Overloaded(detail, hint="scores are not affected", retry_after=RETRY_SECONDS)
