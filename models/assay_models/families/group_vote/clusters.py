"""Clusters of equal answers within one group, and the figures of a vote."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

Denominator = Literal["group", "parseable"]

NONE = -1
"""The cluster of an answer that is in none: it could not be read."""


def clusters_of(forms: Sequence[Hashable | None]) -> tuple[int, ...]:
    """Return the cluster of each form, numbered in the order of their first members; `NONE` of
    None. Equal forms are one cluster, so another order of the answers only renumbers them."""
    numbers: dict[Hashable, int] = {}
    return tuple(NONE if form is None else numbers.setdefault(form, len(numbers)) for form in forms)


@dataclass(frozen=True, slots=True)
class Vote:
    """The vote of one group.

    The share of a cluster is its size over the group's size, or over the number of answers that
    could be read (Zhao et al., *Two is better than one*, arXiv 2605.22620, print the latter). By
    the latter an answer that is the only one to be read has the whole vote; hence a minimum.
    """

    clusters: tuple[int, ...]
    size: int

    @property
    def sizes(self) -> Counter[int]:
        """The number of answers in each cluster."""
        return Counter(cluster for cluster in self.clusters if cluster != NONE)

    @property
    def parseable(self) -> int:
        """The number of answers that could be read."""
        return self.sizes.total()

    def share(self, index: int, denominator: Denominator) -> float:
        """Return the share of an answer's cluster; 0 if it is in none."""
        total = self.size if denominator == "group" else self.parseable
        return self.sizes[self.clusters[index]] / total if total else 0.0

    @property
    def majority_share(self) -> float:
        """The share of the largest cluster among the answers that could be read."""
        return max(self.sizes.values(), default=0) / max(self.parseable, 1)

    @property
    def entropy(self) -> float:
        """The entropy of the clusters among the answers that could be read, in nats."""
        total = self.parseable
        return sum(size / total * math.log(total / size) for size in self.sizes.values())
