"""Groups and channels that no longer tell one item from another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.moments import Moments
from assay_monitors.rules.finding import Finding, graded
from assay_monitors.rules.windows import SCORE, Tally, moments_of, once_known, pooled, tallies
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class GroupDegeneracy:
    """The share of groups whose items all score the same, on every channel.

    Such a group gives a group-relative trainer no gradient. It cannot tell a task that is solved
    from one that is hopeless, nor either from a policy that writes one answer: the mean score can.
    Groups that the trainer filtered out before scoring are not seen.

    From: the zero-variance rule for group rewards, more than 80 % (ZPPO, arXiv 2606.18216, shows
    what such groups do to batch statistics); critical from 95 % is a starting value.
    """

    id: ClassVar[str] = "group_degeneracy"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "a solved task from a hopeless one"

    warn: float = 0.8
    critical: float = 0.95
    least_groups: int = 32
    resolution: float = 0.0

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the share of degenerate groups."""
        counted = [summary.groups.degenerate(self.resolution) for _, summary in series]
        parts = tallies([{"flat": flat, "varied": groups - flat} for flat, groups in counted])
        found: list[Finding | None] = []
        for tally in pooled(parts, Tally, self.least_groups):
            share = tally.share("flat") if tally else 0.0
            severity = graded(share, self.warn, self.critical)
            groups = {"groups": float(tally.count)} if tally else {}
            threshold = self.critical if severity == "critical" else self.warn
            found.append(Finding(severity, share, threshold, (), groups) if severity else None)
        return found


@dataclass(frozen=True, slots=True)
class DeadChannel:
    """A channel that had one and the same value for a thousand items in a row.

    It catches a gate that never opens or a parser that never finds its fields. It cannot tell a
    defect from a requirement that the policy always meets. A model without channels is judged by
    its score.

    From: the dead-channel rule for group rewards, whose case is a gated channel in the public
    code of Peak-Then-Collapse (arXiv 2605.26037).
    """

    id: ClassVar[str] = "dead_channel"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "a defect from a requirement that is always met"

    least_items: int = 1000
    resolution: float = 0.0

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the greatest difference between any two items on the channels told."""
        names = sorted({name for _, summary in series for name in summary.channels})
        known = [bool(summary.channels) for _, summary in series]
        return list(
            once_known(known, self._findings(series, names), self._findings(series, [SCORE]))
        )

    def _findings(self, series: Sequence[Point], names: Sequence[str]) -> list[Finding | None]:
        windows = {
            name: pooled(
                [moments_of(summary, name) for _, summary in series], Moments, self.least_items
            )
            for name in names
        }
        return [
            self._finding({name: moments[place] for name, moments in windows.items()})
            for place in range(len(series))
        ]

    def _finding(self, windows: dict[str, Moments | None]) -> Finding | None:
        spreads = {name: one.high - one.low for name, one in windows.items() if one is not None}
        dead = tuple(name for name, spread in spreads.items() if spread <= self.resolution)
        if not dead:
            return None
        widest = max(spreads[name] for name in dead)
        return Finding("warn", widest, self.resolution, dead, {"items": float(self.least_items)})
