"""Progress of scoring a file: a bar on a terminal, elsewhere a line every few seconds."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from assay.offline.records import LineCounts

LINE_SECONDS = 5.0

Report = Callable[[LineCounts], None]


@contextmanager
def shown_progress(total: int, done: int, clock: Callable[[], float]) -> Iterator[Report]:
    """Show the progress on stderr; yield the function to report counts to.

    Args:
        total: lines to score.
        done: lines that an earlier run scored.
        clock: monotonic seconds.
    """
    progress = _Progress(total, done, clock)
    if not sys.stderr.isatty():
        yield progress.print_periodically
        return
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("scoring", total=total, completed=done, rate="", failed="")

        def report(counts: LineCounts) -> None:
            failed = f"{counts.failed:,} failed" if counts.failed else ""
            rate = f"{progress.rate(counts):,.1f}/s"
            bar.update(task, completed=counts.done, rate=rate, failed=failed)

        yield report


class _Progress:
    """Rate and remaining time of scoring a file."""

    def __init__(self, total: int, done: int, clock: Callable[[], float]) -> None:
        self._total = total
        self._done_before = done
        self._clock = clock
        self._began = self._printed = clock()

    def rate(self, counts: LineCounts) -> float:
        """Return the lines per second since this run began."""
        seconds = max(self._clock() - self._began, 1e-9)
        return (counts.done - self._done_before) / seconds

    def print_periodically(self, counts: LineCounts) -> None:
        now = self._clock()
        if now - self._printed < LINE_SECONDS:
            return
        self._printed = now
        rate = self.rate(counts)
        left = (self._total - counts.done) / rate if rate else float("inf")
        line = (
            f"{counts.done:,} of {self._total:,} lines, {rate:,.1f}/s, "
            f"{duration(left)} left, {counts.failed:,} failed"
        )
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return a readable duration, such as `1 min 24 s`."""
    if seconds == float("inf"):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
