"""Rule over the scripts that responses are written in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.rules.base import Finding, Progress, grade
from assay_monitors.rules.progress import known_points, pooled, staged
from assay_monitors.rules.rolling import Tally, pool_recent, tallies
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class ScriptDrift:
    """The distance between the scripts of responses now and at the start of the run: 0.25 warns,
    0.5 is critical.

    The distance is half the sum of the differences of the scripts' shares (total variation): 0 as
    before, 1 nothing in common. It cannot distinguish a policy that drifted from prompts in another
    language. It sees scripts, not languages: it misses a drift from English to French, and programs
    are mostly `latin` whatever the language around them.

    From: the NLI-checker study (arXiv 2605.25988), where 64.4 % of answers turned Chinese before a
    checker that reads English; the thresholds are starting values.
    """

    id: ClassVar[str] = "script_drift"
    is_default: ClassVar[bool] = True
    limits: ClassVar[str] = "languages of one script, or a drift from prompts in another language"

    warn: float = 0.25
    critical: float = 0.5
    least_items: int = 128

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """Return findings whose `value` is the distance, about the script that gained most."""
        pools = pool_recent(_script_tallies(series), Tally, self.least_items)
        first = next((pool for pool in pools if pool is not None), None)
        if first is None:
            return [None] * len(series)
        return [None if pool is None else self._finding(first, pool) for pool in pools]

    def progress(self, series: Sequence[Point]) -> Progress:
        """Return the responses of the latest points, then the points, of those needed."""
        scripts = _script_tallies(series)
        pools = pool_recent(scripts, Tally, self.least_items)
        return staged(pooled(scripts, self.least_items), known_points(pools, 2))

    def _finding(self, first: Tally, pool: Tally) -> Finding | None:
        names = sorted({*first.counts, *pool.counts})
        gains = {name: pool.share(name) - first.share(name) for name in names}
        distance = sum(map(abs, gains.values())) / 2
        severity = grade(distance, self.warn, self.critical)
        if severity is None:
            return None
        gained = max(names, key=gains.__getitem__)
        return Finding(
            severity,
            value=distance,
            threshold=self.critical if severity == "critical" else self.warn,
            about=(gained,),
            evidence={"share": pool.share(gained), "share_before": first.share(gained)},
        )


def _script_tallies(series: Sequence[Point]) -> list[Tally]:
    return tallies([summary.scripts for _, summary in series])
