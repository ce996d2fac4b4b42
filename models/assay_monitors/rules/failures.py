"""Rules over items without a score, cut items, and responses with nothing in them to score."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.rules.base import Finding, Progress, grade
from assay_monitors.rules.progress import known_points, staged
from assay_monitors.rules.rolling import early_median
from assay_monitors.rules.shares import Counts, pooled_shares, share_findings, share_progress
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class _Share(ABC):
    """A share of items or responses, with the levels from which it warns and is critical."""

    warn: float
    critical: float

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the share."""
        return share_findings(self._counts(series), self.warn, self.critical)

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the items or responses of the latest points, of those that are needed."""
        return share_progress(self._counts(series))

    @abstractmethod
    def _counts(self, series: Sequence[Point]) -> Counts:
        """Return of each point the number that has the property, and the number of all."""


@dataclass(frozen=True, slots=True)
class NullShare(_Share):
    """The share of items that could not be scored: 2 % warns, 20 % is critical.

    Where a trainer reads these as zero, a broken scorer appears to be a bad policy. It cannot
    distinguish the reasons: the error codes of the items can. It fires once the interval of the
    share is clear of the threshold: where every item fails, after three to warn and six to be
    critical.

    From: the judge-health rule, unparseable replies above 2 % (ExpRL, arXiv 2606.17024, masks such
    rollouts out of the loss); a fifth for what is critical is a starting value.
    """

    id: ClassVar[str] = "null_share"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "the reasons for a missing score: see the items' error codes"

    warn: float = 0.02
    critical: float = 0.2

    def _counts(self, series: Sequence[Point]) -> Counts:
        return [(summary.nulls, summary.items) for _, summary in series]


@dataclass(frozen=True, slots=True)
class TruncatedShare(_Share):
    """The share of items that were truncated to the model's length: 10 % warns, 50 % is critical.

    Their scores are of another text than the policy wrote. It cannot distinguish longer responses
    from longer prompts. No source gives a threshold; a tenth, and half, are starting values.
    """

    id: ClassVar[str] = "truncated_share"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "longer responses from longer prompts"

    warn: float = 0.1
    critical: float = 0.5

    def _counts(self, series: Sequence[Point]) -> Counts:
        return [(summary.truncated, summary.items) for _, summary in series]


@dataclass(frozen=True, slots=True)
class EmptyShare(_Share):
    """The share of responses without a single character: 10 % warns, 50 % is critical.

    It cannot distinguish a policy that ends at once from a trainer that sends the wrong field. No
    source gives a threshold; a tenth, and half, are starting values.
    """

    id: ClassVar[str] = "empty_share"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a policy that ends at once from a trainer that sends the wrong field"

    warn: float = 0.1
    critical: float = 0.5

    def _counts(self, series: Sequence[Point]) -> Counts:
        lengths = [summary.characters for _, summary in series]
        return [(length.buckets.get(0, 0), length.count) for length in lengths]


@dataclass(frozen=True, slots=True)
class InvalidShare:
    """The rise since the first points of the share of responses with nothing to score: 0.2 warns,
    0.4 is critical. A share that is surely above 0.9 is critical whatever it was at first.

    Nothing to score means no program, answer or claim. A rise, because a base policy may well start
    with many. It cannot distinguish a policy that forgot the format from a parser that no longer
    knows it.

    From: the NLI-checker study (arXiv 2605.25988), where the share of tagged answers fell to 50 %
    and to 15 % on one set; a rise of a fifth, and of two fifths, and the share of nine tenths are
    starting values.
    """

    id: ClassVar[str] = "invalid_share"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a forgotten format from a parser that no longer knows it"

    warn: float = 0.2
    critical: float = 0.4
    level: float = 0.9

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the share's rise since the first five points, or the
        share itself where it is above the level.
        """
        counts = self._counts(series)
        shares = pooled_shares(counts)
        levels = share_findings(counts, self.level, self.level)
        rows = zip(levels, shares, early_median(shares), strict=True)
        return [level or self._rise(*row) for level, *row in rows]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the items of the latest points, then the points, of those that are needed."""
        counts = self._counts(series)
        return staged(share_progress(counts), known_points(pooled_shares(counts)))

    def _counts(self, series: Sequence[Point]) -> Counts:
        return [(summary.invalid, summary.items) for _, summary in series]

    def _rise(self, share: float | None, before: float | None) -> Finding | None:
        if share is None or before is None:
            return None
        severity = grade(share - before, self.warn, self.critical)
        if severity is None:
            return None
        return Finding(
            severity,
            value=share - before,
            threshold=self.critical if severity == "critical" else self.warn,
            evidence={"share": share, "share_before": before},
        )
