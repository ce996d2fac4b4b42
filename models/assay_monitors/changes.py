"""Changes: what a recorder has summed and not yet written, and the outcome of writing it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from assay_monitors.admission import ANY_WRITER, Refusal, Writer
from assay_monitors.gold import GoldPoint
from assay_monitors.observations import Observation, Window
from assay_monitors.summaries import Summary

GoldKey = tuple[str, str, int]


@dataclass(slots=True)
class Changes:
    """Data not yet written: additions by window, gold by run, source and step.

    `last_steps` has the step that the trainer named last for training, by run, and `named_at` when
    it was named, in seconds since the epoch, where that is known. `owners` has the owner of each
    run as far as it is known, which a new run gets.
    """

    windows: dict[Window, Summary] = field(default_factory=dict)
    gold: dict[GoldKey, GoldPoint] = field(default_factory=dict)
    last_steps: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    named_at: dict[str, float] = field(default_factory=dict)

    @property
    def runs(self) -> set[str]:
        """The runs that the changes belong to."""
        return {window.run for window in self.windows} | {run for run, _, _ in self.gold}

    def name_step(self, run: str, step: int, named_at: float | None) -> None:
        """Take in that the trainer named a step, at `named_at` if that is known."""
        self.last_steps[run] = step
        self.named_at.pop(run, None)
        if named_at is not None:
            self.named_at[run] = named_at

    def observe(
        self,
        window: Window,
        items: Sequence[Observation],
        names_step: bool,
        named_at: float | None = None,
    ) -> None:
        """Add the items of a request; `names_step` and `named_at` as in `Recorder.record`."""
        if names_step:
            self.name_step(window.run, window.step, named_at)
        summary = self.windows.setdefault(window, Summary())
        for item in items:
            summary.add(item)

    def add_telemetry(
        self, window: Window, values: Mapping[str, float], named_at: float | None = None
    ) -> None:
        """Add a trainer's values of a step."""
        self.name_step(window.run, window.step, named_at)
        self.windows.setdefault(window, Summary()).add_telemetry(values)

    def add_gold(self, key: GoldKey, point: GoldPoint, named_at: float | None = None) -> None:
        """Add a gold measurement, which replaces an earlier one."""
        run, _, step = key
        self.name_step(run, step, named_at)
        self.gold[key] = point

    def of_run(self, run: str) -> "Changes":
        """Return the changes of one run."""
        return Changes(
            {window: summary for window, summary in self.windows.items() if window.run == run},
            {key: point for key, point in self.gold.items() if key[0] == run},
            {name: step for name, step in self.last_steps.items() if name == run},
            {name: owner for name, owner in self.owners.items() if name == run},
            {name: time for name, time in self.named_at.items() if name == run},
        )

    def merge(self, later: "Changes") -> None:
        """Add changes that came later."""
        for window, summary in later.windows.items():
            self.windows.setdefault(window, Summary()).merge(summary)
        self.gold |= later.gold
        self.owners |= later.owners
        for run, step in later.last_steps.items():
            self.name_step(run, step, later.named_at.get(run))

    @property
    def size(self) -> int:
        """The number of items and measurements."""
        return sum([max(1, summary.items) for summary in self.windows.values()]) + len(self.gold)

    def __bool__(self) -> bool:
        return bool(self.windows or self.gold)


@dataclass(slots=True)
class Outcome:
    """The outcome of a write: items that found no place, by reason, and rows that were set aside.

    `time` is that of the write, in seconds since the epoch, and `owners` has the runs that were
    written, and the owner of each.
    """

    time: float
    owners: dict[str, str] = field(default_factory=dict)
    refused: Counter[Refusal] = field(default_factory=Counter)
    damaged: int = 0


@dataclass(slots=True)
class Counts:
    """Observations that were written, dropped and refused, failed commits, and damaged rows.

    Observations are dropped where the writer cannot keep up, or the disk does not take them.
    `last_commit` is the time of the last commit that was read back, in seconds since the epoch, and
    `is_kept` whether the latest was.
    """

    written: int = 0
    dropped: int = 0
    failed_commits: int = 0
    damaged_rows: int = 0
    refused: Counter[Refusal] = field(default_factory=Counter)
    last_commit: float = 0.0
    is_kept: bool = True

    def copy(self) -> "Counts":
        """Return the counts as they are now."""
        return replace(self, refused=self.refused.copy())


@dataclass(frozen=True, slots=True)
class DoubtfulCommit:
    """Changes whose commit was cut short, so that they may be written or not, and their sizes."""

    changes: Changes
    sizes: Counter[str]


class QueuedChange(NamedTuple):
    """A change that waits in the queue: its run, its observations, how it is applied, its sender.

    An order is work on the store, for which there is always room.
    """

    run: str
    size: int
    apply: Callable[[Changes], None]
    writer: Writer = ANY_WRITER
    is_order: bool = False
