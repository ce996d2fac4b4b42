"""Errors of libraries that read a checkpoint, turned into a card's."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

from safetensors import SafetensorError

from assay_models.card import CardError

MAX_REASON_CHARACTERS = 400
"""The part of a library's own message that is passed on."""

_PLAIN_ERRORS = (ImportError, OSError, RuntimeError, SafetensorError, ValueError)
"""Errors of libraries whose message alone says what is wrong."""


class CheckpointFault(Exception):
    """A part of a checkpoint that cannot be used; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Reading(AbstractContextManager[None]):
    """A block that reads a part of a checkpoint.

    On broken files the libraries raise anything, `Exception` itself included. Whatever it is, the
    model cannot be served, and the reason names the model and the part.

    Raises:
        CardError: the block raised an exception.
    """

    model: str
    part: str

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, CardError):
            reason = str(error) if isinstance(error, CheckpointFault) else _reason(error)
            raise CardError(f"{self.model}: the {self.part} cannot be used: {reason}") from error


def _reason(error: Exception) -> str:
    """Return what a library said about a checkpoint, on one line."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "it needs the code in its own repository, and such code is never run"
    if len(text) > MAX_REASON_CHARACTERS:
        text = text[:MAX_REASON_CHARACTERS] + " …"
    return text if isinstance(error, _PLAIN_ERRORS) else f"{type(error).__name__}: {text}"
