"""The script that responses are written in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay_monitors.rules.finding import Finding, graded
from assay_monitors.rules.windows import Tally, pooled, tallies
from assay_monitors.summaries import Point


@dataclass(frozen=True, slots=True)
class ScriptDrift:
    """Responses are written in other scripts than at the start of the run.

    The distance is half the sum of the differences of the scripts' shares: 0 as before, 1 nothing
    in common. It cannot tell a policy that drifted from prompts in another language. It sees
    scripts, not languages: a drift from English to French escapes it, and programs are mostly
    `latin` whatever the language around them.

    From: the NLI-checker study (arXiv 2605.25988), where 64.4 % of answers turned Chinese before a
    checker that reads English; the thresholds are starting values.
    """

    id: ClassVar[str] = "script_drift"
    default: ClassVar[bool] = True
    cannot_tell: ClassVar[str] = "languages of one script; a drift from other prompts"

    warn: float = 0.25
    critical: float = 0.5
    least_items: int = 128

    def findings(self, series: Sequence[Point]) -> list[Finding | None]:
        """`value` is the distance; it is about the script that gained most."""
        windows = pooled(tallies([one.scripts for _, one in series]), Tally, self.least_items)
        first = next((window for window in windows if window is not None), None)
        if first is None:
            return [None] * len(series)
        return [None if window is None else self._finding(first, window) for window in windows]

    def _finding(self, first: Tally, window: Tally) -> Finding | None:
        names = sorted({*first.counts, *window.counts})
        gains = {name: window.share(name) - first.share(name) for name in names}
        distance = sum(map(abs, gains.values())) / 2
        severity = graded(distance, self.warn, self.critical)
        if severity is None:
            return None
        gained = max(names, key=gains.__getitem__)
        threshold = self.critical if severity == "critical" else self.warn
        evidence = {"share": window.share(gained), "share_before": first.share(gained)}
        return Finding(severity, distance, threshold, (gained,), evidence)
