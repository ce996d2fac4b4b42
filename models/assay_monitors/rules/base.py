"""Rule, the protocol of all rules, and Finding, the result of one that fires."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Literal, Protocol

from assay_monitors.summaries import Point

Severity = Literal["warn", "critical"]


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


def grade(value: float, warn: float, critical: float) -> Severity | None:
    """Return the severity of a value that is worse the higher it is."""
    if value >= critical:
        return "critical"
    return "warn" if value >= warn else None
