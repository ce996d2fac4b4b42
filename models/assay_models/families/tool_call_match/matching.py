"""The match of two lists of calls: names, then keys and values of the best assignment."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Call = tuple[str, Mapping[str, Any]]


class Match(NamedTuple):
    """The parts of a match, and what they could be at most.

    `names` is the Jaccard index of the names, counted as often as they occur; `keys` and `values`
    are sums over the reference's calls of the Jaccard index of the argument names, and of the
    number of equal values.
    """

    names: float
    keys: float
    values: int
    calls: int
    arguments: int

    @property
    def share(self) -> float:
        """The part that was reached of what could be, from 0 to 1."""
        return (self.names + self.keys + self.values) / (1 + self.calls + self.arguments)


def match_calls(predicted: Sequence[Call], gold: Sequence[Call]) -> Match:
    """Return the match of calls with a reference; their order does not matter.

    Each call of the reference is paired with at most one predicted call of its name, so that the
    sum of keys and values is the largest.
    """
    keys, values = 0.0, 0
    by_name: dict[str, list[list[Mapping[str, Any]]]] = defaultdict(lambda: [[], []])
    for side, calls in enumerate((predicted, gold)):
        for name, arguments in calls:
            by_name[name][side].append(arguments)
    for made, wanted in by_name.values():
        pairs = [[_compare(call, reference) for call in made] for reference in wanted]
        gains = [[index + equal for index, equal in row] for row in pairs]
        for row, column in best_assignment(gains):
            index, equal = pairs[row][column]
            keys, values = keys + index, values + equal
    return Match(
        _jaccard(Counter(name for name, _ in predicted), Counter(name for name, _ in gold)),
        keys,
        values,
        len(gold),
        sum(len(arguments) for _, arguments in gold),
    )


def best_assignment(gains: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Return pairs of rows and columns, each in at most one, whose gains have the largest sum.

    The Hungarian method with potentials (Jonker and Volgenant 1987), in the cube of the size.
    """
    if not gains or not gains[0]:
        return []
    if len(gains) > len(gains[0]):
        turned = best_assignment(list(zip(*gains, strict=True)))
        return sorted((row, column) for column, row in turned)
    rows, columns = len(gains), len(gains[0])
    of_rows, of_columns = [0.0] * (rows + 1), [0.0] * (columns + 1)
    owner = [0] * (columns + 1)
    for row in range(1, rows + 1):
        _augment(row, gains, owner, of_rows, of_columns)
    return sorted((row - 1, column) for column, row in enumerate(owner[1:]) if row)


def _augment(
    row: int,
    gains: Sequence[Sequence[float]],
    owner: list[int],
    of_rows: list[float],
    of_columns: list[float],
) -> None:
    """Give one more row a column, by the path of least cost."""
    columns = len(gains[0])
    owner[0], column = row, 0
    least, before = [float("inf")] * (columns + 1), [0] * (columns + 1)
    used = [False] * (columns + 1)
    while owner[column]:
        used[column] = True
        current, step, following = owner[column], float("inf"), 0
        for other in range(1, columns + 1):
            if used[other]:
                continue
            cost = -gains[current - 1][other - 1] - of_rows[current] - of_columns[other]
            if cost < least[other]:
                least[other], before[other] = cost, column
            if least[other] < step:
                step, following = least[other], other
        for other in range(columns + 1):
            if used[other]:
                of_rows[owner[other]] += step
                of_columns[other] -= step
            else:
                least[other] -= step
        column = following
    while column:
        owner[column] = owner[before[column]]
        column = before[column]


def _compare(call: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[float, int]:
    shared = [key for key in reference if key in call]
    equal = sum(canonical(call[key]) == canonical(reference[key]) for key in shared)
    return _jaccard(Counter(list(call)), Counter(list(reference))), equal


def canonical(value: Any) -> str:
    """Return the text of a JSON value; equal values have equal texts, `1` and `1.0` too."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _jaccard(left: Counter[str], right: Counter[str]) -> float:
    union = (left | right).total()
    return (left & right).total() / union if union else 1.0


def calls_of(calls: Iterable[Any]) -> list[Call]:
    """Return calls as pairs of name and arguments."""
    return [(call.name, call.arguments) for call in calls]
