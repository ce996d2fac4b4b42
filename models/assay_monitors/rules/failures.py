"""Rules over items without a score, truncated items, and items with nothing to score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.intervals import wilson
from assay_monitors.rules.base import Finding, grade
from assay_monitors.rules.rolling import Tally, early_median, pool_recent, tallies
from assay_monitors.summaries import Point

MIN_ITEMS = 200


@dataclass(frozen=True, slots=True)
class NullShare:
    """The share of items that could not be scored: 2 % warns, 20 % is critical.

    Where a trainer reads these as zero, a broken scorer appears to be a bad policy. It cannot
    distinguish the reasons: the error codes of the items can. It fires once the 95 % interval of
    the share is clear of the threshold.

    From: the judge-health rule, unparseable replies above 2 % (ExpRL, arXiv 2606.17024, masks such
    rollouts out of the loss); a fifth for what is critical is a starting value.
    """

    id: ClassVar[str] = "null_share"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "the reasons for a missing score: see the items' error codes"

    warn: float = 0.02
    critical: float = 0.2

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the share of items without a score."""
        pools = _pool_shares([(summary.nulls, summary.items) for _, summary in series])
        return [_surely_above(pool, self.warn, self.critical) for pool in pools]


@dataclass(frozen=True, slots=True)
class TruncatedShare:
    """The share of items that were truncated to the model's length: 10 % warns, 50 % is critical.

    Their scores are of another text than the policy wrote. It cannot distinguish longer responses
    from longer prompts. No source gives a threshold; a tenth, and half, are starting values.
    """

    id: ClassVar[str] = "truncated_share"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "longer responses from longer prompts"

    warn: float = 0.1
    critical: float = 0.5

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the share of items that were truncated."""
        pools = _pool_shares([(summary.truncated, summary.items) for _, summary in series])
        return [_surely_above(pool, self.warn, self.critical) for pool in pools]


@dataclass(frozen=True, slots=True)
class InvalidShare:
    """The rise since the first points of the share of responses with nothing to score: 0.2 warns,
    0.4 is critical.

    Nothing to score means no program, answer or claim. A rise, not a level, because a base policy
    may well start with many. It cannot distinguish a policy that forgot the format from a parser
    that no longer knows it.

    From: the NLI-checker study (arXiv 2605.25988), where the share of tagged answers fell to 50 %
    and to 15 % on one set; a rise of a fifth, and of two fifths, are starting values.
    """

    id: ClassVar[str] = "invalid_share"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a forgotten format from a parser that no longer knows it"

    warn: float = 0.2
    critical: float = 0.4

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the rise of the share since the first five points."""
        pools = _pool_shares([(summary.invalid, summary.items) for _, summary in series])
        shares = [None if pool is None else pool.share("yes") for pool in pools]
        rows = zip(shares, early_median(shares), strict=True)
        return [self._finding(*row) for row in rows]

    def _finding(self, share: float | None, before: float | None) -> Finding | None:
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


def _pool_shares(counts: Sequence[tuple[int, int]]) -> list[Tally | None]:
    parts = tallies([{"yes": hits, "no": items - hits} for hits, items in counts])
    return pool_recent(parts, Tally, MIN_ITEMS)


def _surely_above(pool: Tally | None, warn: float, critical: float) -> Finding | None:
    if pool is None:
        return None
    share = wilson(pool.counts.get("yes", 0), pool.count)
    severity = grade(share.low, warn, critical)
    if severity is None:
        return None
    return Finding(
        severity,
        value=share.value,
        threshold=critical if severity == "critical" else warn,
        evidence={"low": share.low, "high": share.high, "items": float(share.n)},
    )
