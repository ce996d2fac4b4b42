"""Parts that all commands share: settings, messages on stderr, exit codes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum, StrEnum

import typer

from assay.errors import AssayError
from assay.offline.records import CannotResume
from assay.settings import Settings, is_client_variable, read_settings


class Exit(IntEnum):
    """Exit codes of all commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    STOPPED = 3
    INTERRUPTED = 130


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
