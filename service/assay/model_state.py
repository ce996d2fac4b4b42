"""States of a served model without a model: it is loading, failed, or was unloaded."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being loaded or tested."""

    name: Literal["loading"] = "loading"


@dataclass(frozen=True, slots=True)
class Failed:
    """The model could not be loaded, or failed its self-test."""

    reason: str
    name: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Unloaded:
    """The model was unloaded."""

    name: Literal["unloaded"] = "unloaded"
