"""Rules over groups and channels that no longer distinguish one item from another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.moments import Moments
from assay_monitors.rules.base import Finding, grade
from assay_monitors.rules.rolling import (
    SCORE,
    Tally,
    moments_of,
    pool_recent,
    switch_once_known,
    tallies,
)
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class GroupDegeneracy:
    """The share of groups whose items all score the same on every channel: 80 % warns, 95 % is
    critical.

    Such a group gives a group-relative trainer no gradient. It cannot distinguish a solved task
    from a hopeless one, nor either from a policy that writes one answer: the mean score can. Groups
    that the trainer filtered out before scoring are not seen.

    From: the zero-variance rule for group rewards, more than 80 % (ZPPO, arXiv 2606.18216, shows
    what such groups do to batch statistics); critical from 95 % is a starting value.
    """

    id: ClassVar[str] = "group_degeneracy"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a solved task from a hopeless one"

    warn: float = 0.8
    critical: float = 0.95
    least_groups: int = 32
    resolution: float = 0.0

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the share of degenerate groups."""
        counted = [summary.groups.count_zero_variance(self.resolution) for _, summary in series]
        parts = tallies([{"flat": flat, "varied": groups - flat} for flat, groups in counted])
        pools = pool_recent(parts, Tally, self.least_groups)
        return [None if tally is None else self._finding(tally) for tally in pools]

    def _finding(self, tally: Tally) -> Finding | None:
        share = tally.share("flat")
        severity = grade(share, self.warn, self.critical)
        if severity is None:
            return None
        return Finding(
            severity,
            value=share,
            threshold=self.critical if severity == "critical" else self.warn,
            evidence={"groups": float(tally.count)},
        )


@dataclass(frozen=True, slots=True)
class DeadChannel:
    """A channel that had one and the same value for 1000 items in a row.

    It catches a gate that never opens or a parser that never finds its fields. It cannot
    distinguish a defect from a requirement that the policy always meets. A model without channels
    is evaluated by its score.

    From: the dead-channel rule for group rewards, whose case is a gated channel in the public
    code of Peak-Then-Collapse (arXiv 2605.26037).
    """

    id: ClassVar[str] = "dead_channel"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "a defect from a requirement that is always met"

    least_items: int = 1000
    resolution: float = 0.0

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the widest range of the channels they are about."""
        names = sorted({name for _, summary in series for name in summary.channels})
        known = [bool(summary.channels) for _, summary in series]
        by_channel, by_score = self._findings(series, names), self._findings(series, [SCORE])
        return list(switch_once_known(known, by_channel, by_score))

    def _findings(self, series: Sequence[Point], names: Sequence[str]) -> list[Finding | None]:
        pools = {
            name: pool_recent(
                [moments_of(summary, name) for _, summary in series], Moments, self.least_items
            )
            for name in names
        }
        return [
            self._finding({name: moments[place] for name, moments in pools.items()})
            for place in range(len(series))
        ]

    def _finding(self, pools: dict[str, Moments | None]) -> Finding | None:
        ranges = {name: pool.high - pool.low for name, pool in pools.items() if pool is not None}
        dead = tuple(name for name, width in ranges.items() if width <= self.resolution)
        if not dead:
            return None
        return Finding(
            "warn",
            value=max(ranges[name] for name in dead),
            threshold=self.resolution,
            about=dead,
            evidence={"items": float(self.least_items)},
        )
