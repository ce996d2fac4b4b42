"""How far the scores of each group lie apart, of a bounded sample of groups."""

from collections.abc import Mapping
from dataclasses import dataclass, field

GROUPS = 128
NAMES = 9


@dataclass(slots=True)
class Extent:
    """The scored items of one group: how many, and the least and greatest value of the score (which
    has no name) and of each channel.
    """

    count: int = 0
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        """Take in one item's values by channel."""
        self.count += 1
        for name, value in values.items():
            self._widen(name, value, value)
        self._trim()

    def merge(self, other: "Extent") -> None:
        """Take in the other's items, of the same group."""
        self.count += other.count
        for name, (low, high) in other.bounds.items():
            self._widen(name, low, high)
        self._trim()

    def constant(self, resolution: float) -> bool:
        """Whether every channel's values lie within `resolution` of each other."""
        return all(high - low <= resolution for low, high in self.bounds.values())

    def _widen(self, name: str, low: float, high: float) -> None:
        known = self.bounds.get(name)
        if known is None:
            self.bounds[name] = (low, high)
        elif low < known[0] or high > known[1]:
            self.bounds[name] = (min(known[0], low), max(known[1], high))

    def _trim(self) -> None:
        if len(self.bounds) > NAMES:
            for name in sorted(self.bounds)[NAMES:]:
                del self.bounds[name]


@dataclass(slots=True)
class GroupSample:
    """The groups of the 128 smallest digests.

    Which groups those are is chance, and the same whatever the order: a group that is not among the
    smallest of a part is not among the smallest of the whole, so whatever is kept is kept entirely.
    """

    extents: dict[str, Extent] = field(default_factory=dict)

    def add(self, digest: str, values: Mapping[str, float]) -> None:
        """Take in one item of a group."""
        full = len(self.extents) == GROUPS and digest not in self.extents
        if not full or digest < max(self.extents):
            self._extent(digest).add(values)
            self._trim()

    def merge(self, other: "GroupSample") -> None:
        """Take in the other's groups."""
        for digest, extent in other.extents.items():
            self._extent(digest).merge(extent)
        self._trim()

    def degenerate(self, resolution: float) -> tuple[int, int]:
        """Groups without variance on any channel, and groups of two scored items or more."""
        real = [extent for extent in self.extents.values() if extent.count > 1]
        return sum(extent.constant(resolution) for extent in real), len(real)

    @property
    def mean_size(self) -> float:
        """Scored items a group; 1 where there are no groups."""
        items = sum(extent.count for extent in self.extents.values())
        return items / len(self.extents) if self.extents else 1.0

    def _extent(self, digest: str) -> Extent:
        return self.extents.setdefault(digest, Extent())

    def _trim(self) -> None:
        if len(self.extents) > GROUPS:
            for digest in sorted(self.extents)[GROUPS:]:
                del self.extents[digest]
