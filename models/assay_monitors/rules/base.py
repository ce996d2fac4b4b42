"""Rule, the protocol of all rules, and Finding, the result of one that fires."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Literal, NamedTuple, Protocol

from assay_monitors.summaries import Point

Severity = Literal["warn", "critical"]
Unit = Literal["items", "groups", "labels", "steps"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule's threshold that was passed at a step.

    Attributes:
        severity: of the threshold.
        value: the measured value.
        threshold: the threshold that it passed, in the same unit.
        about: the channels, labels or scripts that it is about.
        evidence: the other numbers that it rests on.
    """

    severity: Severity
    _: KW_ONLY
    value: float
    threshold: float
    about: tuple[str, ...] = ()
    evidence: Mapping[str, float] = field(default_factory=dict)


class Progress(NamedTuple):
    """The data that a rule has at the latest point, and those that it needs to decide."""

    seen: int
    needed: int
    unit: Unit

    @property
    def is_complete(self) -> bool:
        """Whether the rule has what it needs: if it does not fire then, it found nothing."""
        return self.seen >= self.needed


class Rule(Protocol):
    """One detector.

    Its docstring says what it fires on, what it cannot distinguish and where it is from.
    `is_default` says whether it is evaluated by default, `limits` what it cannot distinguish.
    """

    id: ClassVar[str]
    is_default: ClassVar[bool]
    limits: ClassVar[str]

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return one result for each point, None where the rule does not fire.

        Points come by rising step, and no result depends on a later point. Where a step adds
        nothing that the rule measures, its result is that of the values known before.
        """

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return what the rule has at the latest point of one or more, and what it needs.

        It may fire before that is complete. Nothing seen means that its input never came.
        """


def grade(value: float, warn: float, critical: float) -> Severity | None:
    """Return the severity of a value that is worse the higher it is."""
    if value >= critical:
        return "critical"
    return "warn" if value >= warn else None
