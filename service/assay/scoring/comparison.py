"""Comparison of a shadow's scores with those of the model that it shadows."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import chain, combinations, product
from typing import NamedTuple

from cachetools import LRUCache

MAX_GROUP, MAX_GROUPS = 64, 1024
"""Items of a group that are compared in pairs, and groups that are continued by later requests."""

Scores = tuple[float, float]
"""One item's scores by the model that is served and by its shadow."""


class ScorePair(NamedTuple):
    """The scores of one item by both models, None where one has none, and its group."""

    primary: float | None
    shadow: float | None
    group: str | None


class Agreement(NamedTuple):
    """Pairs of items of one group that both models order alike, in opposite ways, and those that
    either model scores the same.
    """

    concordant: int = 0
    discordant: int = 0
    tied: int = 0


class GroupAgreement:
    """The agreement in order within groups, as Kendall's tau counts it (Kendall 1938).

    The items of a group may come in several requests, if these name a run.
    """

    def __init__(self) -> None:
        self._earlier: LRUCache[Hashable, list[Scores]] = LRUCache(MAX_GROUPS)

    def add(self, pairs: Sequence[ScorePair], run: Hashable | None) -> Agreement:
        """Return the agreement of the pairs of items that a request completes.

        Args:
            pairs: the scores of the request's items.
            run: the run, split and step that it names; None if it names none, and its groups end
                with it.
        """
        orders: list[int] = []
        for group, members in _groups(pairs).items():
            earlier = [] if run is None else self._earlier.setdefault((run, group), [])
            new = members[: MAX_GROUP - len(earlier)]
            orders += [_order(*pair) for pair in chain(combinations(new, 2), product(earlier, new))]
            earlier.extend(new)
        return Agreement(orders.count(1), orders.count(-1), orders.count(0))


def _groups(pairs: Sequence[ScorePair]) -> Mapping[str, list[Scores]]:
    groups: dict[str, list[Scores]] = {}
    for primary, shadow, group in pairs:
        if group is not None and primary is not None and shadow is not None:
            groups.setdefault(group, []).append((primary, shadow))
    return groups


def _order(left: Scores, right: Scores) -> int:
    """Return 1 if both models order two items alike, -1 if not, 0 if one scores them the same."""
    return _sign(left[0] - right[0]) * _sign(left[1] - right[1])


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
