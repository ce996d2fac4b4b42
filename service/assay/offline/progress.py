"""Progress of scoring a file: a bar on a terminal, a line now and then elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from assay.offline.lines import Tally

LINE_SECONDS = 5.0

Report = Callable[[Tally], None]


@contextmanager
def shown_progress(total: int, done: int, clock: Callable[[], float]) -> Iterator[Report]:
    """Show on stderr how far it is.

    Args:
        total: lines to score.
        done: lines that an earlier run has scored.
        clock: monotonic seconds.
    """
    pace = _Pace(total, done, clock)
    if not sys.stderr.isatty():
        yield pace.print_now_and_then
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

        def report(tally: Tally) -> None:
            failed = f"{tally.failed:,} failed" if tally.failed else ""
            rate = f"{pace.rate(tally):,.1f}/s"
            bar.update(task, completed=tally.done, rate=rate, failed=failed)

        yield report


class _Pace:
    def __init__(self, total: int, done: int, clock: Callable[[], float]) -> None:
        self._total = total
        self._done_before = done
        self._clock = clock
        self._began = self._printed = clock()

    def rate(self, tally: Tally) -> float:
        """Lines a second since this run began."""
        seconds = max(self._clock() - self._began, 1e-9)
        return (tally.done - self._done_before) / seconds

    def print_now_and_then(self, tally: Tally) -> None:
        now = self._clock()
        if now - self._printed < LINE_SECONDS:
            return
        self._printed = now
        rate = self.rate(tally)
        left = (self._total - tally.done) / rate if rate else float("inf")
        line = (
            f"{tally.done:,} of {self._total:,} lines, {rate:,.1f}/s, "
            f"{duration(left)} left, {tally.failed:,} failed"
        )
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds == float("inf"):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
