"""Items that have no score, were cut, or held nothing to score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.intervals import wilson
from assay_monitors.rules.finding import Finding, graded
from assay_monitors.rules.windows import Tally, early, pooled, tallies
from assay_monitors.summaries import Point

LEAST_ITEMS = 200


@dataclass(frozen=True, slots=True)
class NullShare:
    """Items that could not be scored.

    Where a trainer reads these as zero, a broken scorer looks like a bad policy. It cannot tell
    why: the error codes of the items can. A share is told once its 95 % interval is clear of the
    limit.

    From: the judge-health rule, unparseable replies above 2 % (ExpRL, arXiv 2606.17024, masks such
    rollouts out of the loss); a fifth for what is critical is a starting value.
    """

    id: ClassVar[str] = "null_share"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "why: the error codes can"

    warn: float = 0.02
    critical: float = 0.2

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the share of items without a score."""
        windows = _windows([(one.nulls, one.items) for _, one in series])
        return [_surely_above(window, self.warn, self.critical) for window in windows]


@dataclass(frozen=True, slots=True)
class TruncatedShare:
    """Items that were cut to the model's length before they were scored.

    Their scores are of another text than the policy wrote. It cannot tell longer responses from
    longer prompts. No source gives a threshold; a tenth, and half, are starting values.
    """

    id: ClassVar[str] = "truncated_share"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "longer responses from longer prompts"

    warn: float = 0.1
    critical: float = 0.5

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the share of items that were cut."""
        windows = _windows([(one.truncated, one.items) for _, one in series])
        return [_surely_above(window, self.warn, self.critical) for window in windows]


@dataclass(frozen=True, slots=True)
class InvalidShare:
    """More responses than at first hold nothing that could be scored: no program, answer or claim.

    A rise, not a level, because a base policy may well start with many. It cannot tell a policy
    that forgot the format from a parser that no longer knows it.

    From: the NLI-checker study (arXiv 2605.25988), where the share of tagged answers fell to 50 %
    and to 15 % on one set; a rise of a fifth, and of two fifths, are starting values.
    """

    id: ClassVar[str] = "invalid_share"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "a forgotten format from a parser that no longer knows it"

    warn: float = 0.2
    critical: float = 0.4

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the rise of the share since the first five points."""
        windows = _windows([(one.invalid, one.items) for _, one in series])
        shares = [None if one is None else one.share("yes") for one in windows]
        places = zip(shares, early(shares), strict=True)
        return [self._finding(*place) for place in places]

    def _finding(self, share: float | None, before: float | None) -> Finding | None:
        if share is None or before is None:
            return None
        severity = graded(share - before, self.warn, self.critical)
        if severity is None:
            return None
        threshold = self.critical if severity == "critical" else self.warn
        return Finding(
            severity, share - before, threshold, (), {"share": share, "share_before": before}
        )


def _windows(counts: Sequence[tuple[int, int]]) -> list[Tally | None]:
    parts = tallies([{"yes": hits, "no": items - hits} for hits, items in counts])
    return pooled(parts, Tally, LEAST_ITEMS)


def _surely_above(window: Tally | None, warn: float, critical: float) -> Finding | None:
    if window is None:
        return None
    share = wilson(window.counts.get("yes", 0), window.count)
    severity = graded(share.low, warn, critical)
    if severity is None:
        return None
    evidence = {"low": share.low, "high": share.high, "items": float(share.n)}
    threshold = critical if severity == "critical" else warn
    return Finding(severity, share.value, threshold, (), evidence)
