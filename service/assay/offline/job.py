"""One run of `assay score`: from two paths to a summary."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from assay.offline.files import Output, opened_input, opened_output
from assay.offline.lines import (
    Halted,
    Line,
    Pace,
    Recorded,
    Scorer,
    Tally,
    check_identity,
    count_lines,
    read_lines,
    read_recorded,
    score_file,
)
from assay.offline.progress import shown_progress

Connect = Callable[[], AbstractAsyncContextManager[Scorer]]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Job:
    """What to score, and where the results go; `restart` throws earlier results away."""

    source: Path
    output: Path
    pace: Pace
    restart: bool = False


@dataclass(slots=True)
class Summary:
    """What a run came to. `before` counts lines that an earlier run had scored; `halted` says why
    it stopped early.
    """

    total: int
    blank: int
    before: int
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    halted: Halted | None = None
    interrupted: bool = False


def run_job(job: Job, connect: Connect, clock: Clock) -> Summary:
    """Score a file, going on where an earlier run stopped.

    Args:
        job: the files.
        connect: gives the scorer, for as long as it is needed.
        clock: monotonic seconds.

    Raises:
        FileError: a file cannot be used.
        CannotResume: the output belongs to other lines, another model or other options.
    """
    with opened_input(job.source) as source, opened_output(job.output, job.restart) as output:
        total, blank = count_lines(source)
        source.seek(0)
        lines = read_lines(source)
        recorded = _recorded(output, lines)
        summary = Summary(total, blank, recorded.tally.done, recorded.tally)
        began = clock()
        try:
            asyncio.run(_score(job, connect, lines, output, recorded, total, clock))
        except Halted as error:
            summary.halted = error
        except KeyboardInterrupt:
            summary.interrupted = True
        summary.seconds = clock() - began
        return summary


def _recorded(output: Output, lines: Iterator[Line]) -> Recorded:
    if not output.resumable:
        return Recorded()
    with open(os.dup(output.file.fileno()), "rb") as written:
        return read_recorded(written, lines)


async def _score(
    job: Job,
    connect: Connect,
    lines: Iterator[Line],
    output: Output,
    recorded: Recorded,
    total: int,
    clock: Clock,
) -> None:
    async with connect() as scorer:
        await check_identity(recorded, scorer)
        if output.resumable:
            output.file.truncate(recorded.end)
            output.file.seek(recorded.end)
        with shown_progress(total, recorded.tally.done, clock) as report:
            await score_file(lines, scorer, output.file, recorded, job.pace, report)
