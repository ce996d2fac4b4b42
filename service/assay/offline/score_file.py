"""Scoring of one file by `assay score`: from an input and an output path to a summary."""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from assay.offline.files import Output, opened_input, opened_output
from assay.offline.lines import InputLine, count_lines, read_lines
from assay.offline.progress import Report, shown_progress
from assay.offline.records import (
    LineCounts,
    OutputState,
    check_same_model,
    encode_record,
    read_records,
)
from assay.offline.scorer import Halted, ItemOutcome, Scorer, score_batch
from assay.types import Clock

Connect = Callable[[], AbstractAsyncContextManager[Scorer]]


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Items in a batch, and batches in flight at a time."""

    batch_size: int
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class FileScoring:
    """The input to score and the output of the results.

    `restart` discards earlier results. `setup` is a digest of all that decides the numbers and can
    be read without loading the model; None if it is a server's model.
    """

    source: Path
    output: Path
    concurrency: Concurrency
    restart: bool = False
    setup: str | None = None


@dataclass(slots=True)
class FileSummary:
    """The result of scoring a file.

    `resumed` counts lines that an earlier run had scored; `halted` is the reason of an early stop.
    """

    total: int
    blank: int
    resumed: int
    counts: LineCounts = field(default_factory=LineCounts)
    seconds: float = 0.0
    halted: Halted | None = None
    interrupted: bool = False


def score_file(scoring: FileScoring, connect: Connect, clock: Clock) -> FileSummary:
    """Score a file, continuing where an earlier run stopped.

    The model is loaded only if a line has to be scored, or if an output that is complete was
    written with another setup.

    Args:
        scoring: the files and the concurrency.
        connect: returns a context manager that provides the scorer.
        clock: monotonic seconds.

    Raises:
        FileError: a file cannot be used.
        CannotResume: the output belongs to other lines, another model or other options.
    """
    with (
        opened_input(scoring.source) as source,
        opened_output(scoring.output) as output,
    ):
        total, blank = count_lines(source)
        source.seek(0)
        lines = read_lines(source)
        state = OutputState() if scoring.restart else _read_state(output, lines)
        summary = FileSummary(total, blank, state.counts.done, state.counts)
        if state.counts.done == total and state.is_of(scoring.setup):
            _truncate(output, state)
            return summary
        progress = shown_progress(total, state.counts.done, clock)
        began = clock()
        try:
            asyncio.run(
                _connect_and_score(
                    scoring, connect, lines=lines, output=output, state=state, progress=progress
                )
            )
        except Halted as error:
            summary.halted = error
        except KeyboardInterrupt:
            summary.interrupted = True
        summary.seconds = clock() - began
        return summary


async def score_lines(
    lines: Iterator[InputLine],
    scorer: Scorer,
    *,
    output: BinaryIO,
    begin: Callable[[], None],
    state: OutputState,
    concurrency: Concurrency,
    report: Report,
    setup: str | None = None,
) -> None:
    """Score the remaining lines and write one result per line, in order.

    A batch is written as a whole and flushed before the next one. `begin` is called before the
    first, so that earlier results are kept until there are new ones. `state.counts` is kept up to
    date and passed to `report` after each batch.

    Raises:
        Halted: scoring cannot continue, or the model changed during the run.
    """
    encode = partial(encode_record, setup=setup)
    has_begun = False
    batches = iter(lambda: list(islice(lines, concurrency.batch_size)), [])
    in_flight: deque[tuple[list[InputLine], asyncio.Task[list[ItemOutcome]]]] = deque()
    try:
        while True:
            for batch in islice(batches, concurrency.max_in_flight - len(in_flight)):
                in_flight.append((batch, asyncio.create_task(score_batch(batch, scorer))))
            if not in_flight:
                break
            batch, task = in_flight[0]
            outcomes = await task
            in_flight.popleft()
            state.check_unchanged(outcomes)
            if not has_begun:
                begin()
                has_begun = True
            _write(output, b"".join(map(encode, batch, outcomes)))
            for outcome in outcomes:
                state.counts.add(outcome.result.error)
            report(state.counts)
        if not has_begun:
            begin()
    finally:
        for _, task in in_flight:
            task.cancel()
        await asyncio.gather(*(task for _, task in in_flight), return_exceptions=True)


def _read_state(output: Output, lines: Iterator[InputLine]) -> OutputState:
    if not output.resumable:
        return OutputState()
    with open(os.dup(output.file.fileno()), "rb") as written:
        return read_records(written, lines)


async def _connect_and_score(
    scoring: FileScoring,
    connect: Connect,
    *,
    lines: Iterator[InputLine],
    output: Output,
    state: OutputState,
    progress: AbstractContextManager[Report],
) -> None:
    async with connect() as scorer:
        await check_same_model(state, scorer)
        with progress as report:
            await score_lines(
                lines,
                scorer,
                output=output.file,
                begin=partial(_truncate, output, state),
                state=state,
                concurrency=scoring.concurrency,
                report=report,
                setup=scoring.setup,
            )


def _truncate(output: Output, state: OutputState) -> None:
    """Cut off an incomplete last line, and continue behind the complete ones."""
    if output.resumable:
        output.file.truncate(state.end)
        output.file.seek(state.end)


def _write(output: BinaryIO, data: bytes) -> None:
    remaining = memoryview(data)
    try:
        while remaining:
            remaining = remaining[output.write(remaining) :]
        output.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Halted(f"cannot write the output: {error.strerror}") from error
