"""Advantages of groups: GDPO (arXiv 2601.05242), ZPPO (arXiv 2606.18216), ExpRL (2606.17024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from assay_client.advantages._arrays import known, like, mean_and_std, to_list

ReduceFn = Callable[[list[float]], Sequence[float]]
Gate = tuple[Union[int, str], Union[int, str], float]
Column = list[Union[float, None]]


@dataclass(frozen=True)
class AdvantageInfo:
    """Figures of one call, of this process's rows.

    Attributes:
        zero_variance: by channel, the share of groups in which its spread is no more than
            `min_std`; groups without a reward in that channel count.
        f_nt: the share of groups that are not trivial, in which some channel varies.
        n_null: rewards that are null, by channel, gates included.
    """

    zero_variance: tuple[float, ...]
    f_nt: float
    n_null: tuple[int, ...]


def gdpo_advantages(
    rewards: Any,
    group_ids: Any,
    weights: Sequence[float] | None = None,
    eps: float = 1e-4,
    min_std: float | Sequence[float] = 0.0,
    whiten: Literal["batch", "none"] = "batch",
    exclude_zero_variance: bool = True,
    gates: Sequence[Gate] = (),
    reduce_fn: ReduceFn | None = None,
    channels: Sequence[str] | None = None,
) -> tuple[Any, AdvantageInfo]:
    """Return the advantages of GDPO: each channel is normalised in its group, then all are summed.

    `A_k = (r_k - mean) / (max(std, min_std) + eps)` in each group, `A = sum(w_k A_k)`, whitened
    over the batch. With `exclude_zero_variance=False` it equals TRL's `normalize_then_sum`.

    A null reward stays out of its channel's mean and spread, and adds nothing to its row. A row
    without any reward has the advantage 0.

    Args:
        rewards: [N, K].
        group_ids: [N], any hashable values. A group must lie in one process.
        weights: [K]; all 1 unless given.
        eps: added to each spread.
        min_std: the least spread to divide by, one for all channels or [K]. Give a model's
            `resolution`: a smaller spread is noise, which would be scaled up to advantages of 1.
        whiten: `none` leaves the last step out.
        exclude_zero_variance: leave groups that teach nothing out of the whitening. If they are
            in, all other advantages are larger by 1 / sqrt(`f_nt`) (ZPPO). A group teaches nothing
            if no channel of non-zero weight has a spread above `min_std`.
        gates: `("length", "correct", 1.0)`: `length` counts as 0 where `correct` is below 1, and is
            null where `correct` is null. Channels are named by index, or by `channels`.
        reduce_fn: sums a list of numbers over all processes; it is called twice by each process.
        channels: the channels' names, for gates.

    Returns:
        The advantages, [N], in the form of `rewards`; and figures to log.

    Raises:
        ValueError: shapes do not match, a reward is infinite, a gate names no channel, or a gated
            channel has a negative reward.
    """
    columns = _to_columns(rewards, channels)
    groups = _rows_of_groups(group_ids, len(columns[0]))
    scales = _per_channel("weights", 1.0 if weights is None else weights, len(columns))
    floors = _per_channel("min_std", min_std, len(columns))
    columns = _apply_gates(columns, gates, channels)
    totals, varying, info = _normalise(columns, groups, scales, floors, eps)
    has_reward = [any(column[row] is not None for column in columns) for row in range(len(totals))]
    if whiten == "batch":
        counted = [v or not exclude_zero_variance for v in varying]
        totals = _whiten(totals, groups, counted, has_reward, eps, reduce_fn)
    elif whiten != "none":
        raise ValueError("whiten must be 'batch' or 'none'")
    return like(rewards, totals), info


def two_step_advantages(
    rewards: Any,
    group_ids: Any,
    eps: float = 1e-4,
    exclude_zero_variance: bool = True,
    reduce_fn: ReduceFn | None = None,
) -> tuple[Any, AdvantageInfo]:
    """Return ZPPO's advantages: less the group's mean, then over the spread of the batch.

    Plain prompts and each kind of reformulated prompt are groups of their own.

    Args:
        rewards: [N]; null for a row without one, whose advantage is 0.
        group_ids: as for `gdpo_advantages`, as the others.
        eps: added to the spread.
        exclude_zero_variance: take the spread over groups whose rewards differ.
        reduce_fn: sums a list of numbers over all processes.

    Raises:
        ValueError: shapes do not match, or a reward is infinite.
    """
    column: Column = [known(value, f"reward {row}") for row, value in enumerate(to_list(rewards))]
    groups = _rows_of_groups(group_ids, len(column))
    totals = [0.0] * len(column)
    varying = [_add_normalised(totals, column, rows, 1.0, 1.0, 0.0, False) > 0 for rows in groups]
    info = AdvantageInfo(
        zero_variance=(varying.count(False) / len(groups),),
        f_nt=sum(varying) / len(groups),
        n_null=(column.count(None),),
    )
    counted = [v or not exclude_zero_variance for v in varying]
    has_reward = [value is not None for value in column]
    return like(rewards, _whiten(totals, groups, counted, has_reward, eps, reduce_fn)), info


def delta_advantages(
    segment_scores: Sequence[Sequence[float | None]],
) -> tuple[list[list[float]], list[bool]]:
    """Return ExpRL's advantages of segments: the gain of each prefix over the one before.

    The advantage of segment t is `s_t - s_{t-1}`, and of the first `s_1 - s_T`, so that a rollout's
    advantages sum to zero; that of a single segment is 0. The scores are those of growing prefixes.

    Args:
        segment_scores: for each rollout the scores of its prefixes, in order.

    Returns:
        The advantages, all 0 for a rollout with a null score; and for each rollout whether it is
        to be in the loss.

    Raises:
        ValueError: a score is infinite.
    """
    advantages, is_counted = [], []
    for number, given in enumerate(segment_scores):
        scores = [known(score, f"a score of rollout {number}") for score in given]
        numbers = [score for score in scores if score is not None]
        complete = bool(scores) and len(numbers) == len(scores)
        before = numbers[-1:] + numbers[:-1]
        gains = [score - last for score, last in zip(numbers, before)]
        advantages.append(gains if complete else [0.0] * len(scores))
        is_counted.append(complete)
    return advantages, is_counted


def _normalise(
    columns: Sequence[Column],
    groups: Sequence[Sequence[int]],
    scales: Sequence[float],
    floors: Sequence[float],
    eps: float,
) -> tuple[list[float], list[bool], AdvantageInfo]:
    """Return each row's weighted z-scores, summed; for each group whether a channel varies."""
    totals = [0.0] * len(columns[0])
    flat, varying = [0] * len(columns), [False] * len(groups)
    for k, column in enumerate(columns):
        for g, rows in enumerate(groups):
            spread = _add_normalised(totals, column, rows, scales[k], floors[k], eps)
            if spread <= floors[k]:
                flat[k] += 1
            elif scales[k]:
                varying[g] = True
    info = AdvantageInfo(
        zero_variance=tuple(count / len(groups) for count in flat),
        f_nt=sum(varying) / len(groups),
        n_null=tuple(column.count(None) for column in columns),
    )
    return totals, varying, info


def _to_columns(rewards: Any, channels: Sequence[str] | None) -> list[Column]:
    rows = [to_list(row) for row in to_list(rewards)]
    width = len(rows[0]) if rows else 0
    if not width or any(len(row) != width for row in rows):
        raise ValueError("rewards must be N rows of K channels, both at least 1")
    if channels is not None and len(channels) != width:
        raise ValueError(f"channels must be {width} names, one for each column of rewards")
    return [
        [known(row[k], f"the reward of row {n}, channel {k}") for n, row in enumerate(rows)]
        for k in range(width)
    ]


def _rows_of_groups(group_ids: Any, count: int) -> list[list[int]]:
    ids: list[Hashable] = to_list(group_ids)
    if len(ids) != count or not ids:
        raise ValueError(f"group_ids must be {count} values, one for each row, and not {len(ids)}")
    groups: dict[Hashable, list[int]] = {}
    for row, name in enumerate(ids):
        groups.setdefault(name, []).append(row)
    return list(groups.values())


def _per_channel(name: str, value: Any, width: int) -> list[float]:
    values = [float(value)] * width if isinstance(value, (int, float)) else to_list(value)
    if len(values) != width:
        raise ValueError(f"{name} must be {width} numbers, one for each channel")
    if any(not math.isfinite(number) or (name == "min_std" and number < 0) for number in values):
        raise ValueError(f"{name} must be finite numbers, and min_std not negative")
    return values


def _apply_gates(
    columns: list[Column], gates: Sequence[Gate], channels: Sequence[str] | None
) -> list[Column]:
    gated = list(columns)
    for name, condition, threshold in gates:
        target, source = _index(name, columns, channels), _index(condition, columns, channels)
        if any(value is not None and value < 0 for value in columns[target]):
            raise ValueError(
                f"the gated channel {name!r} has a negative reward, which the 0 of a closed gate "
                "would reward: shift it to 0 and above"
            )
        pairs = zip(gated[target], columns[source])
        gated[target] = [_gated(value, hard, threshold) for value, hard in pairs]
    return gated


def _gated(value: float | None, condition: float | None, threshold: float) -> float | None:
    if value is None or condition is None:
        return None
    return value if condition >= threshold else 0.0


def _index(name: int | str, columns: Sequence[Column], channels: Sequence[str] | None) -> int:
    if isinstance(name, str):
        if name not in (channels or ()):
            raise ValueError(f"a gate names {name!r}: give the names of the columns as channels")
        return list(channels or ()).index(name)
    if not 0 <= name < len(columns):
        raise ValueError(f"a gate names column {name}, and there are {len(columns)}")
    return name


def _add_normalised(
    totals: list[float],
    column: Column,
    rows: Sequence[int],
    weight: float,
    floor: float,
    eps: float,
    is_scaled: bool = True,
) -> float:
    """Add a group's weighted z-scores in one channel to its rows; return the group's spread."""
    found = [(row, value) for row in rows if (value := column[row]) is not None]
    if not found:
        return 0.0
    mean, spread = mean_and_std([value for _, value in found])
    divisor = max(spread, floor) + eps if is_scaled else 1.0
    if spread:
        for row, value in found:
            totals[row] += weight * (value - mean) / divisor
    return spread


def _whiten(
    totals: list[float],
    groups: Sequence[Sequence[int]],
    counted: Sequence[bool],
    has_reward: Sequence[bool],
    eps: float,
    reduce_fn: ReduceFn | None,
) -> list[float]:
    """Return the totals, whitened by the statistics of the counted groups of all processes."""
    reduce_sums = reduce_fn or list
    inside = {row for rows, is_in in zip(groups, counted) if is_in for row in rows}
    inside = {row for row in inside if has_reward[row]}
    count, total = reduce_sums([float(len(inside)), math.fsum(totals[row] for row in inside)])
    mean = total / count if count else 0.0
    (squares,) = reduce_sums([math.fsum((totals[row] - mean) ** 2 for row in inside)])
    if count < 2:
        return totals
    spread = math.sqrt(squares / (count - 1)) + eps
    return [(value - (mean if row in inside else 0.0)) / spread for row, value in enumerate(totals)]
