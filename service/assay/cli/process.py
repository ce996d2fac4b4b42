"""Parts that all commands share: settings, messages on stderr, exit codes."""

import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from enum import IntEnum, StrEnum
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from assay.errors import AssayError
from assay.offline.records import CannotResume
from assay.settings import Settings, is_client_variable, read_settings

PIPE_WIDTH = 10_000  # one line a row, for other programs


class Exit(IntEnum):
    """Exit codes of all commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    STOPPED = 3
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    """As of a process that SIGPIPE ends: the reader of stdout has gone, such as `head`."""


class LogLevel(StrEnum):
    """The lowest severity that is logged."""

    critical = "critical"
    error = "error"
    warning = "warning"
    info = "info"
    debug = "debug"


def print_message(text: str) -> None:
    """Print a message on stderr."""
    typer.echo(text, err=True)


def exit_with(code: Exit, reason: str, hint: str | None = None) -> typer.Exit:
    """Print the reason on stderr; return the exception to raise."""
    print_message(f"error: {reason}" + (f"\nhint: {hint}" if hint else ""))
    return typer.Exit(code)


@contextmanager
def on_errors(kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn these exceptions into a usage error: a message with a hint, and no traceback."""
    try:
        yield
    except kinds as error:
        hint = error.hint if isinstance(error, AssayError | CannotResume) else None
        raise exit_with(Exit.USAGE, str(error), hint) from None


def local_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings for work in this process, ignoring the client's own variables.

    Raises:
        SettingsError: see `read_settings`.
    """
    own = {name: text for name, text in environment.items() if not is_client_variable(name)}
    return read_settings(own)


class _Console(Console):
    """A console that leaves a closed pipe to `QuietPipes`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_table(table: Table) -> None:
    """Print a table on stdout, as wide as the terminal."""
    width = None if os.isatty(1) else PIPE_WIDTH
    _Console(width=width, highlight=False, markup=False).print(table)


class QuietPipes(TyperGroup):
    """Commands that end quietly when the reader of their standard output has gone."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the arguments, or print the help."""
        with _ending_at_closed_pipe():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _ending_at_closed_pipe():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result


@contextmanager
def _ending_at_closed_pipe() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        raise typer.Exit(Exit.PIPE_CLOSED) from None


def silence_progress_bars(environment: MutableMapping[str, str], stream: TextIO) -> None:
    """Disable the libraries' progress bars unless `stream` is a terminal: they would fill a log.

    It has an effect in a process that has imported neither tqdm nor huggingface_hub yet.
    """
    if not stream.isatty():
        for name in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):
            environment.setdefault(name, "1")
