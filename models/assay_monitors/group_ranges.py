"""Minimum and maximum of each group's scores, for a bounded sample of groups."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_GROUPS = 128

SCORE = ""
"""The name of the score itself, beside the names of channels."""
MAX_NAMES = 9
"""The score and eight channels: those whose names are the first in alphabetical order."""


@dataclass(slots=True)
class GroupRange:
    """The number of scored items of one group, and their minimum and maximum by name.

    The names are those of the channels, and `SCORE` for the score itself.
    """

    count: int = 0
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        """Add one item's values by channel."""
        self.count += 1
        for name, value in values.items():
            self._widen(name, value, value)
        self._trim()

    def merge(self, other: "GroupRange") -> None:
        """Add the items of `other`, which is of the same group."""
        self.count += other.count
        for name, (low, high) in other.bounds.items():
            self._widen(name, low, high)
        self._trim()

    def is_constant(self, resolution: float) -> bool:
        """Return whether every channel's values lie within `resolution` of each other."""
        return all(high - low <= resolution for low, high in self.bounds.values())

    def _widen(self, name: str, low: float, high: float) -> None:
        known = self.bounds.get(name)
        if known is None:
            self.bounds[name] = (low, high)
        elif low < known[0] or high > known[1]:
            self.bounds[name] = (min(known[0], low), max(known[1], high))

    def _trim(self) -> None:
        if len(self.bounds) > MAX_NAMES:
            for name in sorted(self.bounds)[MAX_NAMES:]:
                del self.bounds[name]


@dataclass(slots=True)
class GroupSample:
    """The ranges of the 128 groups with the smallest digests (bottom-k sampling by hash).

    A digest is the hash of a group's name. The choice is pseudo-random and does not depend on the
    order of the items. A bottom-k sample merges exactly: a group outside the k smallest digests of
    any part is outside those of the union. So every group in the sample is complete.
    """

    ranges: dict[str, GroupRange] = field(default_factory=dict)

    def add(self, digest: str, values: Mapping[str, float]) -> None:
        """Add one item of the group whose name has this digest."""
        is_full = len(self.ranges) == MAX_GROUPS and digest not in self.ranges
        if not is_full or digest < max(self.ranges):
            self._range(digest).add(values)
            self._trim()

    def merge(self, other: "GroupSample") -> None:
        """Add the groups of `other`."""
        for digest, group in other.ranges.items():
            self._range(digest).merge(group)
        self._trim()

    def count_zero_variance(self, resolution: float) -> tuple[int, int]:
        """Count the groups of two scored items or more.

        Returns:
            Those without variance on any channel, and all of them.
        """
        groups = [group for group in self.ranges.values() if group.count > 1]
        return sum(group.is_constant(resolution) for group in groups), len(groups)

    @property
    def mean_size(self) -> float:
        """The mean number of scored items of a group; 1 where there are no groups."""
        items = sum(group.count for group in self.ranges.values())
        return items / len(self.ranges) if self.ranges else 1.0

    def _range(self, digest: str) -> GroupRange:
        return self.ranges.setdefault(digest, GroupRange())

    def _trim(self) -> None:
        if len(self.ranges) > MAX_GROUPS:
            for digest in sorted(self.ranges)[MAX_GROUPS:]:
                del self.ranges[digest]
