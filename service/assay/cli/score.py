"""`assay score`: a file of items, scored here or on a server."""

import logging
import os
import time
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from assay.app import open_repository
from assay.cli.process import Exit, LogLevel, exit_with, local_settings, on_errors, tell
from assay.errors import SettingsError
from assay.offline.files import STREAM, FileError
from assay.offline.job import Connect, Job, Summary, run_job
from assay.offline.lines import CannotResume, Pace
from assay.offline.local import local_scorer
from assay.settings import Settings
from assay_models.base import Options
from assay_models.repository import ModelNotFound


class Truncation(StrEnum):
    """What happens to an item that is too long."""

    error = "error"
    left = "left"
    right = "right"
    middle = "middle"


def score(
    file: Annotated[Path, typer.Argument(help="Items, one JSON object a line; - is stdin.")],
    model: Annotated[str, typer.Option(help="The model, as name or name@version.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Results, one a line; - is stdout.")
    ],
    url: Annotated[
        str | None,
        typer.Option(help="Score on this server. Without it the model is loaded here."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Items in a batch.")] = 64,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Batches under way.")] = 4,
    truncation: Annotated[
        Truncation, typer.Option(help="What happens to items that are too long.")
    ] = Truncation.error,
    raw: Annotated[bool, typer.Option("--raw", help="The model's own number as score.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what the output holds.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="With --url: seconds for a batch, retries included.")
    ] = 600.0,
    log_level: Annotated[LogLevel, typer.Option(help="What is logged.")] = LogLevel.critical,
) -> None:
    """Score a file of items. An output that is there already is continued.

    Exit code 0: all lines scored; 1: some could not be; 2: wrong usage; 3: stopped before the end;
    130: interrupted.
    """
    logging.basicConfig(level=log_level.upper())
    with on_errors((SettingsError, ModelNotFound, FileError, CannotResume)):
        _check_paths(file, output)
        options = Options(truncation.value, raw)
        job = Job(file, output, Pace(batch_size, concurrency), restart)
        connect = (
            _connect_here(model, options)
            if url is None
            else _connect_to(url, timeout, model, options)
        )
        summary = run_job(job, connect, time.monotonic)
    _conclude(summary, output)


def _check_paths(source: Path, output: Path) -> None:
    if source != STREAM and output != STREAM and source.resolve() == output.resolve():
        raise FileError("the output is the input itself")


def _connect_here(model: str, options: Options) -> Connect:
    served, found = settings_for(model)
    return lambda: local_scorer(served, found, options)


def _connect_to(url: str, timeout: float, model: str, options: Options) -> Connect:
    remote, client = remote_client(url, timeout)
    return lambda: remote.remote_scorer(client, model, options)


def settings_for(model: str) -> tuple[Settings, str]:
    """The settings under which this process serves one model, and the model's id.

    Raises:
        SettingsError: as `local_settings` says.
        ModelNotFound: there is none of that name.
    """
    settings = local_settings(os.environ)
    found = open_repository(settings).find(model).card.id
    return settings.model_copy(update={"models": (found,)}), found


def remote_client(url: str, timeout: float) -> tuple[ModuleType, Any]:
    """The module that works on a server, and a client of it; or the end of the command."""
    try:
        from assay.offline import remote
        from assay_client import AsyncClient
    except ModuleNotFoundError as error:
        reason = f"--url needs the package {error.name!r}"
        raise exit_with(Exit.USAGE, reason, "pip install assay-client") from None
    try:
        return remote, AsyncClient(url, timeout=timeout)
    except ValueError as error:
        raise exit_with(Exit.USAGE, f"--url: {error}") from None


def _conclude(summary: Summary, output: Path) -> None:
    tally = summary.tally
    reasons = ", ".join(f"{code} {count:,}" for code, count in sorted(tally.failures.items()))
    failed = f"{tally.failed:,} failed" + (f" ({reasons})" if reasons else "")
    notes = [f"{summary.seconds:.1f} s"]
    if summary.before:
        notes.append(f"{summary.before:,} of them by an earlier run")
    if summary.blank:
        notes.append(f"blank lines passed over: {summary.blank:,}")
    told = f"{tally.done:,} of {summary.total:,} lines: {tally.scored:,} scored, {failed}"
    tell("; ".join([told, *notes]))
    goes_on = None if not output.is_file() else f"the same command goes on with {output}"
    halted = summary.halted
    if halted is not None and halted.misused:
        raise exit_with(Exit.USAGE, halted.detail, halted.hint)
    if halted is not None:
        hint = "; ".join(filter(None, (halted.hint, goes_on)))
        raise exit_with(Exit.STOPPED, halted.detail, hint)
    if summary.interrupted:
        raise exit_with(Exit.INTERRUPTED, "interrupted", goes_on)
    raise typer.Exit(Exit.FAILED if tally.failed else Exit.DONE)
