"""What a rule is, and what it finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from assay_monitors.summaries import Point

Severity = Literal["warn", "critical"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule's threshold was passed at a step.

    Attributes:
        severity: how much.
        value: what was measured.
        threshold: what it passed, in the same unit.
        about: the channels, labels or scripts it is about.
        evidence: the other numbers that it rests on.
    """

    severity: Severity
    value: float
    threshold: float
    about: tuple[str, ...] = ()
    evidence: Mapping[str, float] = field(default_factory=dict)


class Rule(Protocol):
    """One detector. Its docstring says what it sees, what it cannot tell and where it is from.

    `default` says whether it watches unless asked not to, `cannot_tell` what it cannot tell apart.
    `findings` gives one answer for each point, None for silence; no answer depends on a later
    point. Points come by rising step. Where a step adds nothing to what a rule looks at, its answer
    is that of what was known before.
    """

    id: ClassVar[str]
    default: ClassVar[bool]
    cannot_tell: ClassVar[str]

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """One answer for each point."""


def graded(value: float, warn: float, critical: float) -> Severity | None:
    """The severity of a value that is worse the higher it is."""
    if value >= critical:
        return "critical"
    return "warn" if value >= warn else None
