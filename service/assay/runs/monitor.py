"""RunMonitor: records the scores of training runs in a file, outside the request's path."""

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
from assay_monitors.observations import Observation, Window, measure_text
from assay_monitors.recorder import Counts, Recorder
from assay_monitors.reports import RunHealth
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore, StoreError

logger = logging.getLogger(__name__)

T = TypeVar("T")
Clock = Callable[[], float]
Item = Mapping[str, Any]

# Bounds of the results that wait to be measured: items, and characters of their responses.
MAX_WAITING_ITEMS, MAX_WAITING_CHARACTERS = 8_192, 16 * 2**20
CLOSING_SECONDS = 5.0
# Requests within this time are measured together: waking the thread for each of them would cost
# the event loop more than the measuring itself.
GATHER_SECONDS = 0.1
RETRY_SECONDS = 1.0
FILE = "runs.db"
SPLIT = "train"
# Codes and flags of a response in which there was nothing to score.
INVALID = frozenset(("invalid_code", "no_claims"))
UNSURE = "low_confidence"


class PolicyResponse(NamedTuple):
    """The policy's response in an item: its text, the number of tool calls, and its tokens."""

    text: str | None
    calls: int | None = None
    tokens: int | None = None


class PendingResults(NamedTuple):
    """A request's results that wait to be measured."""

    window: Window
    responses: Sequence[PolicyResponse]
    results: Sequence[ItemResult]
    characters: int


@dataclass(frozen=True, slots=True)
class RunStep:
    """The training run and step that a request belongs to.

    The default step is 0, the default split `train`.
    """

    id: str
    step: int | None = None
    split: str | None = None

    def window(self, model: str) -> Window:
        """Return the window that the results of a model are added to."""
        return Window(self.id, model, self.split or SPLIT, self.step or 0)


class RunMonitor:
    """Recorder of the results of requests that name their run, and reader of the runs' history.

    Measuring, reading and writing have a thread each: a request only hands over its results.
    Results that do not fit are dropped and counted.

    Args:
        path: the file; None for a temporary one that is deleted with the process.
        metrics: counters of observations.
        clock: monotonic seconds.
        enabled: whether anything is recorded at all.
        evaluator: evaluates runs after a commit; None for no evaluation.
    """

    def __init__(
        self,
        path: Path | None,
        metrics: Metrics,
        clock: Clock,
        *,
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
        if self._recorder is None:
            return
        responses = [_policy_response(fields, candidate) for fields in items]
        texts = [response.text for response in responses if response.text is not None]
        characters = sum(map(len, texts))
        if not self._capacity.reserve(len(items), characters):
            self._series.observations.labels("dropped").inc(len(items))
            return
        window = step.window(model)
        self._pending.append(PendingResults(window, responses, list(results), characters))
        if not self._gathering:
            self._gathering = True
            with suppress(RuntimeError):  # the pool is closed: the server stops
                self._measuring.submit(self._measure, self._recorder)

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

    def record_telemetry(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Record the values that a trainer reports for a step.

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
            on_commit = self._evaluator.on_commit if self._evaluator else None
            store = RunStore(path, Retention(), time.time)
            recorder = Recorder(store, self._clock, on_commit=on_commit)
        except (OSError, sqlite3.Error, StoreError) as error:
            logger.error("runs cannot be kept in %s: %s", path, error)
            return False
        recorder.start()
        self._recorder, self._history = recorder, RunHistory(path)
        return True

    def _temporary_path(self) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="assay-runs-", ignore_cleanup_errors=True)
        return Path(self._folder.name) / FILE

    def _measure(self, recorder: Recorder) -> None:
        self._closing.wait(GATHER_SECONDS)
        self._gathering = False  # a request from here on submits the next measurement
        while self._pending:
            pending = self._pending.popleft()
            try:
                observations = list(map(observation, pending.responses, pending.results))
                recorder.record(pending.window, observations)
            finally:
                self._capacity.release(len(pending.results), pending.characters)

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


def observation(response: PolicyResponse, result: ItemResult) -> Observation:
    """Return what is recorded of an item: its result, and measures of the response's text."""
    scored = result.status == "ok"
    measures = None if response.text is None else measure_text(response.text)
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
    """Return the flags of a result, with `error:CODE` for one without a score."""
    if result.error is None:
        return tuple(result.flags)
    return (*result.flags, f"error:{result.error.code}")


def _labels(details: Mapping[str, Any]) -> dict[str, int]:
    """Count the label of a pair, or of each claim of an answer.

    A label below the model's own confidence bound counts as `low_confidence`.
    """
    claims = details.get("claims")
    verdicts = claims if isinstance(claims, list) else [details]
    return Counter(
        [
            UNSURE if verdict.get("status") == UNSURE else verdict["label"]
            for verdict in verdicts
            if isinstance(verdict.get("label"), str)
        ]
    )


def _policy_response(fields: Item, candidate: str) -> PolicyResponse:
    """Return the response of an item; a failed item's fields may be of any type."""
    text, tokens = response_text(fields, candidate), fields.get("response_tokens")
    return PolicyResponse(text, _calls(fields), tokens if isinstance(tokens, int) else None)


def _calls(fields: Item) -> int | None:
    """Return the number of tool calls; `searched` without `calls` counts as one or none."""
    calls, searched = fields.get("calls"), fields.get("searched")
    if calls is None and isinstance(searched, bool):
        return int(searched)
    return calls if isinstance(calls, int) else None


def response_text(fields: Item, candidate: str) -> str | None:
    """Return the response, the field in which candidates vary, or the last message's content."""
    messages = fields.get("messages")
    last = messages[-1] if messages and isinstance(messages, Sequence) else None
    content = last.get("content") if isinstance(last, Mapping) else None
    texts = (fields.get("response"), fields.get(candidate), content)
    return next((text for text in texts if isinstance(text, str)), None)


def _off() -> RunsOff:
    return RunsOff("this server keeps no runs", hint="start it with ASSAY_RUNS=FILE")


def _busy(detail: str) -> Overloaded:
    return Overloaded(detail, hint="scores are not affected", retry_after=RETRY_SECONDS)
