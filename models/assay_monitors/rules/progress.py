"""Progress of rules: how much of what they need they have at the latest point."""

from collections.abc import Iterable, Sequence

from assay_monitors.rules.base import Progress, Unit
from assay_monitors.rules.rolling import EARLY_POINTS, Pool


def pooled(parts: Sequence[Pool], needed: int, unit: Unit = "items") -> Progress:
    """Return the progress of a rule that pools its latest points, see `pool_recent`."""
    seen = sum(part.count for part in parts)
    return Progress(min(seen, needed), needed, unit)


def known_points(values: Iterable[object], needed: int = EARLY_POINTS + 1) -> Progress:
    """Return the progress of a rule that compares points: those with a value, of those needed."""
    seen = sum(value is not None for value in values)
    return Progress(min(seen, needed), needed, "steps")


def staged(*parts: Progress) -> Progress:
    """Return the progress of a rule that needs these in turn: the first that is not complete."""
    return next((part for part in parts if not part.is_complete), parts[-1])


def least(*parts: Progress) -> Progress:
    """Return the progress of a rule that needs all of these: the one that is furthest behind."""
    return min(parts, key=lambda part: part.seen / part.needed)


def furthest(*parts: Progress) -> Progress:
    """Return the progress of a rule that needs any of these: the one that is furthest ahead."""
    return max(parts, key=lambda part: part.seen / part.needed)
