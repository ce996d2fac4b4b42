"""Metrics of verified rollouts, as NeMo-Gym's resources servers compute them.

The statistics and their names are those of nemo_gym/reward_profile.py at 07d6b0d0.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from assay.errors import quote

Numbers = Mapping[str, float]
Rollout = Mapping[str, Any]

TASK, ROLLOUT = "_ng_task_index", "_ng_rollout_index"
INDICES = frozenset((TASK, ROLLOUT))


class MetricsError(Exception):
    """Two rollouts have the same indices, or an index is not an integer."""


def aggregate(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Return the statistics of every number of the rollouts, by task and over all.

    Args:
        rollouts: replies of `/verify`. Booleans count as 0 and 1; the numbers of `response.usage`
            belong to the rollout.

    Raises:
        MetricsError: two rollouts have the same indices, or an index is not an integer.
    """
    by_task: dict[int, dict[int, Rollout]] = {}
    for rollout in rollouts:
        task, index = _index(rollout, TASK), _index(rollout, ROLLOUT)
        if by_task.setdefault(task, {}).setdefault(index, rollout) is not rollout:
            raise MetricsError(f"two rollouts have {TASK} {task} and {ROLLOUT} {index}")
    groups = [(task, dict(sorted(by_task[task].items()))) for task in sorted(by_task)]
    overall = _describe([_numbers(rollout) for rollout in rollouts])
    return {
        "group_level_metrics": [_group(task, group) for task, group in groups],
        "agent_metrics": overall,
        "key_metrics": {k: v for k, v in overall.items() if k.startswith("mean/")},
    }


def _group(task: int, rollouts: Mapping[int, Rollout]) -> dict[str, Any]:
    numbers = {index: _numbers(rollout) for index, rollout in rollouts.items()}
    return {
        TASK: task,
        **_describe(list(numbers.values())),
        "sample": {"agent_ref": {"name": "agent"}},
        "num_rollouts": len(rollouts),
        "expected_num_rollouts": len(rollouts),
        "missing_num_rollouts": 0,
        "reward_profile_completion_pct": 100.0,
        "rollout_infos": [
            {
                "rollout_id": f"{task}:{index}",
                TASK: task,
                ROLLOUT: index,
                **({"reward": None} if "reward" in rollouts[index] else {}),
                **values,
            }
            for index, values in numbers.items()
        ],
    }


def _index(rollout: Rollout, name: str) -> int:
    value = rollout.get(name, 0)
    if type(value) is not int:
        raise MetricsError(f"{name} is an integer, not {quote(value)}")
    return value


def _numbers(rollout: Rollout) -> dict[str, float]:
    response = rollout.get("response")
    usage = response.get("usage") if isinstance(response, Mapping) else None
    fields = {**rollout, **(usage if isinstance(usage, Mapping) else {})}
    return {
        name: float(value)
        for name, value in fields.items()
        if isinstance(value, int | float) and name not in INDICES
    }


def _describe(rows: Sequence[Numbers]) -> dict[str, float]:
    """Return five statistics of each column; those that are not finite are left out."""
    columns: dict[str, list[float]] = {}
    for row in rows:  # each may have names of its own
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {
        f"{statistic}/{name}": value
        for name, values in columns.items()
        for statistic, value in _statistics(values, len(rows))
        if math.isfinite(value)
    }


def _statistics(values: Sequence[float], rows: int) -> Iterable[tuple[str, float]]:
    yield "mean", (mean := sum(values) / len(values))
    yield "max", max(values)
    yield "min", min(values)
    yield "median", median(values)
    if len(values) > 1:
        squares = sum((value - mean) * (value - mean) for value in values)
        yield "std", math.sqrt(squares / (len(values) - 1))
    elif rows == 1:
        yield "std", 0.0
