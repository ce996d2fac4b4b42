"""`assay score`: score a file of items, in this process or on a server."""

import logging
import os
import time
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn

import typer

from assay.cli.process import Exit, LogLevel, exit_with, local_settings, on_errors, print_message
from assay.errors import SettingsError
from assay.offline.files import STREAM, FileError
from assay.offline.local import local_scorer, setup_of
from assay.offline.records import CannotResume
from assay.offline.score_file import Concurrency, Connect, FileScoring, FileSummary, score_file
from assay.selection import open_repository
from assay.settings import Settings
from assay_models.base import Options
from assay_models.repository import ModelNotFound, RepositoryEntry


class Truncation(StrEnum):
    """The treatment of an item that is too long."""

    error = "error"
    left = "left"
    right = "right"
    middle = "middle"


def score(
    file: Annotated[Path, typer.Argument(help="Items, one JSON object per line; - is stdin.")],
    *,
    model: Annotated[str, typer.Option(help="The model, as name or name@version.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Results, one per line; - is stdout. Default: beside FILE, with the ending "
            ".scores.jsonl; for stdin, stdout.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="The server to score on. Without it the model is loaded in this process."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Items in a batch.")] = 64,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Batches in flight at a time.")
    ] = 4,
    truncation: Annotated[
        Truncation, typer.Option(help="Treatment of items that are too long.")
    ] = Truncation.error,
    raw: Annotated[
        bool, typer.Option("--raw", help="Return the raw model output as score.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard the results in the output.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="With --url: seconds for a batch, including retries.")
    ] = 600.0,
    log_level: Annotated[
        LogLevel, typer.Option(help="The lowest severity to log.")
    ] = LogLevel.critical,
) -> None:
    """Score a file of items. If the output exists, scoring continues where it stopped.

    Exit code 0: all lines were scored; 1: some could not be scored; 2: usage error; 3: stopped
    before the end; 130: interrupted; 141: the reader of the output has gone.
    """
    logging.basicConfig(level=log_level.upper())
    with on_errors((SettingsError, ModelNotFound, FileError, CannotResume)):
        target = _default_output(file) if output is None else output
        _check_paths(file, target)
        options = Options(truncation.value, raw)
        connect, setup = (
            _connect_locally(model, options)
            if url is None
            else (_connect_remotely(url, timeout, model, options), None)
        )
        batches = Concurrency(batch_size, concurrency)
        scoring = FileScoring(file, target, batches, restart, setup)
        summary = score_file(scoring, connect, time.monotonic)
    if output is None and target != STREAM:
        print_message(f"results: {target}")
    _conclude(summary, target)


def _default_output(source: Path) -> Path:
    """Return `items.scores.jsonl` for `items.jsonl`; a stream has no place beside it."""
    is_stream = source == STREAM or (source.exists() and not source.is_file())
    return STREAM if is_stream else source.with_suffix(".scores.jsonl")


def _check_paths(source: Path, output: Path) -> None:
    if source != STREAM and output != STREAM and source.resolve() == output.resolve():
        raise FileError("the output is the input itself")


def _connect_locally(model: str, options: Options) -> tuple[Connect, str]:
    settings, entry = settings_for(model)
    setup = setup_of(settings, entry, options)
    return lambda: local_scorer(settings, entry.card.id, options), setup


def _connect_remotely(url: str, timeout: float, model: str, options: Options) -> Connect:
    remote, client = remote_client(url, timeout)
    return lambda: remote.remote_scorer(client, model, options)


def settings_for(model: str) -> tuple[Settings, RepositoryEntry]:
    """Return the settings with which this process serves only one model, and the model's entry.

    Raises:
        SettingsError: see `local_settings`.
        ModelNotFound: there is no model of that name.
    """
    settings = local_settings(os.environ)
    entry = open_repository(settings).find(model)
    return settings.model_copy(update={"models": (entry.card.id,)}), entry


def remote_client(url: str, timeout: float) -> tuple[ModuleType, Any]:
    """Return the module that works on a server, and a client of it; exit if there is none."""
    try:
        from assay.offline import remote
        from assay_client import AsyncClient
    except ModuleNotFoundError as error:
        reason = f"--url needs the package {error.name!r}"
        hint = "install the client: pip install ./clients, in a checkout of Assay"
        raise exit_with(Exit.USAGE, reason, hint) from None
    try:
        return remote, AsyncClient(url, timeout=timeout)
    except ValueError as error:
        raise exit_with(Exit.USAGE, f"--url: {error}") from None


def _conclude(summary: FileSummary, output: Path) -> NoReturn:
    counts = summary.counts
    reasons = ", ".join(f"{code} {count:,}" for code, count in sorted(counts.failures.items()))
    failed = f"{counts.failed:,} failed" + (f" ({reasons})" if reasons else "")
    notes = [f"{summary.seconds:.1f} s"]
    if summary.resumed:
        notes.append(f"{summary.resumed:,} of them by an earlier run")
    if summary.blank:
        notes.append(f"blank lines passed over: {summary.blank:,}")
    result = f"{counts.done:,} of {summary.total:,} lines: {counts.scored:,} scored, {failed}"
    print_message("; ".join([result, *notes]))
    _exit(summary, output)


def _exit(summary: FileSummary, output: Path) -> NoReturn:
    resume_hint = None if not output.is_file() else f"the same command goes on with {output}"
    halted = summary.halted
    if halted is not None and halted.is_usage_error:
        raise exit_with(Exit.USAGE, halted.detail, halted.hint)
    if halted is not None:
        hint = "; ".join(filter(None, (halted.hint, resume_hint)))
        raise exit_with(Exit.STOPPED, halted.detail, hint)
    if summary.interrupted:
        raise exit_with(Exit.INTERRUPTED, "interrupted", resume_hint)
    raise typer.Exit(Exit.FAILED if summary.counts.failed else Exit.DONE)
