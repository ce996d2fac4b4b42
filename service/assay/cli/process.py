"""What all commands share: settings, what they say beside their results, exit codes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum, StrEnum

import typer

from assay.errors import AssayError
from assay.offline.lines import CannotResume
from assay.settings import Settings, read_settings

CLIENT_VARIABLES = frozenset({"ASSAY_URL", "ASSAY_API_KEY"})
REWARD_VARIABLES = "ASSAY_REWARD_"  # how those of the client's reward functions begin


class Exit(IntEnum):
    """Exit codes of all commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    STOPPED = 3
    INTERRUPTED = 130


class LogLevel(StrEnum):
    """From which severity on the log speaks."""

    critical = "critical"
    error = "error"
    warning = "warning"
    info = "info"
    debug = "debug"


def tell(text: str) -> None:
    """Say something on stderr."""
    typer.echo(text, err=True)


def exit_with(code: Exit, reason: str, hint: str | None = None) -> typer.Exit:
    """Say why on stderr; the exception to raise."""
    tell(f"error: {reason}" + (f"\nhint: {hint}" if hint else ""))
    return typer.Exit(code)


@contextmanager
def on_errors(kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """End the command with a line and a hint, not a traceback, when it was called wrongly."""
    try:
        yield
    except kinds as error:
        hint = error.hint if isinstance(error, AssayError | CannotResume) else None
        raise exit_with(Exit.USAGE, str(error), hint) from None


def local_settings(environment: Mapping[str, str]) -> Settings:
    """The settings for work in this process. The client's own variables may stand beside them.

    Raises:
        SettingsError: as `read_settings` says.
    """
    own = {
        name: text
        for name, text in environment.items()
        if name not in CLIENT_VARIABLES and not name.startswith(REWARD_VARIABLES)
    }
    return read_settings(own)
