"""Owners: whose run it is, asked before a request's data are recorded in it."""

from collections.abc import Mapping
from contextlib import suppress

from assay.errors import AssayError, DeadlineExceeded, Forbidden, Overloaded, RunQuotaExceeded
from assay.metric_series import RunSeries
from assay.runs.reading import RunReader
from assay.types import Caller, Clock
from assay_monitors.admission import Refusal, Writer, replaceable
from assay_monitors.history import RunHistory
from assay_monitors.retention import KeptOwner, Retention

MAX_KNOWN_RUNS = 10_000


class Owners:
    """The owners of runs, as far as they are known, and the check of a writer before it writes.

    The recorder decides. The check gives the same answer early, while the client can get it.

    Args:
        retention: the limits of the file.
        series: counters of what is refused.
        clock: seconds since the epoch.
    """

    def __init__(self, retention: Retention, series: RunSeries, clock: Clock) -> None:
        self._retention = retention
        self._series = series
        self._clock = clock
        self._known: dict[str, str] = {}

    def add(self, owners: Mapping[str, str]) -> None:
        """Take in the owners of runs in the file. Thread-safe."""
        if len(self._known) > MAX_KNOWN_RUNS:
            self._known.clear()
        self._known.update(owners)

    def replace(self, owners: Mapping[str, str]) -> None:
        """Take in the owners of all runs that are stored."""
        self._known = dict(owners)

    def remove(self, run: str) -> None:
        """Take in that a run is no longer in the file."""
        self._known.pop(run, None)

    def is_known_as_foreign(self, run: str, writer: Writer) -> bool:
        """Return whether the run was another's when it was last seen. Reads no file."""
        owner = self._known.get(run)
        return owner is not None and not writer.may_change(owner)

    async def check(
        self, reader: RunReader, run: str, writer: Writer, source: str | None = None
    ) -> None:
        """Check that a writer may record telemetry, or gold of a source, in a run.

        Where the file cannot be read now, the recorder alone decides.

        Raises:
            Forbidden: it is another's run.
            RunQuotaExceeded: there is no place for a new run, or for a new gold source.
        """
        if source is None and run in self._known and not self.is_known_as_foreign(run, writer):
            return
        with suppress(Overloaded, DeadlineExceeded):
            await reader.read(lambda history: self._check(history, run, writer, source))

    def refused(self, reason: Refusal, run: str) -> AssayError:
        """Count a refusal, and return its error."""
        self._series.refused.labels(reason).inc()
        if reason == "owner":
            return foreign_run(run)
        if reason == "sources":
            return RunQuotaExceeded(
                f"the run {run!r} has {self._retention.sources} gold sources already",
                hint="send the measurement under one of them",
            )
        return RunQuotaExceeded(
            f"{self._retention.runs} runs are kept, and none of yours is old enough to make room",
            hint="delete or unpin runs that have ended",
        )

    def _check(self, history: RunHistory, run: str, writer: Writer, source: str | None) -> None:
        kept = history.find(run)
        if kept is None or kept.is_expected:
            self._check_room(history, run, writer)
            return
        self._known[run] = kept.owner
        if not writer.may_change(kept.owner):
            raise self.refused("owner", run)
        sources = [] if source is None else history.sources(run)
        if source not in sources and len(sources) >= self._retention.sources:
            raise self.refused("sources", run)

    def _check_room(self, history: RunHistory, run: str, writer: Writer) -> None:
        others = [kept for kept in history.runs() if kept.run != run]
        owners = [
            # What is not stored yet counts as the writer's own.
            KeptOwner(
                kept.run,
                writer.name if kept.is_expected else kept.owner,
                is_pinned=kept.pinned,
                last_seen=kept.last_seen,
            )
            for kept in reversed(others)
        ]
        is_full = len(owners) >= self._retention.runs
        if is_full and replaceable(owners, self._retention, writer.name, self._clock()) is None:
            raise self.refused("runs", run)


def writer_of(caller: Caller) -> Writer:
    """Return the writer that a request's sender is."""
    return Writer(caller.name, "admin" in caller.scopes)


def foreign_run(run: str) -> Forbidden:
    """Return the error of a request that would change another's run."""
    return Forbidden(
        f"the run {run!r} belongs to another API key",
        hint="use the key that made it or one with the scope admin, or choose another name",
        title="Run of another API key",
    )
