"""Channels of a reply as the columns of rewards that trainers take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assay_client.types import Result, ScoreReply

SCORE = "score"


def channel_columns(
    reply: ScoreReply, channels: Sequence[str], prefix: str = ""
) -> dict[str, list[float | None]]:
    """Return one column of N rewards for each channel, in the order given.

    NeMo-RL's `gdpo` estimator reads `reward/<name>`, so give `prefix="reward/"`; its weights follow
    the names in alphabetical order. It lets NaN spread: see `replace_null`.

    Args:
        reply: of N items; those without a score have None in every column.
        channels: names of channels; `score` is the score itself.
        prefix: put before each name.

    Raises:
        ValueError: a scored item has no such channel, not even a null one.
    """
    return {prefix + name: [channel_of(item, name) for item in reply.results] for name in channels}


def channel_of(result: Result, name: str) -> float | None:
    """Return a channel of a result; None if it is null, or if the item could not be scored.

    Raises:
        ValueError: the item has a score, and no such channel.
    """
    if name == SCORE or result.score is None:
        return result.score
    if name not in result.channels and result.error is not None:  # a substitute has no channels
        return None
    if name not in result.channels:
        there = ", ".join([SCORE, *sorted(result.channels)])
        raise ValueError(f"the model has no channel {name!r}; it has: {there}")
    return result.channels[name]


def replace_null(
    columns: Mapping[str, Sequence[float | None]], replacements: Mapping[str, float]
) -> dict[str, list[float]]:
    """Return columns without null, for trainers in which NaN spreads to the whole batch.

    A column with a replacement gets another column `<name>_null` beside it, 1.0 where the number
    was put in, so that the trainer logs the share of numbers that no model measured.

    Args:
        columns: as `channel_columns` returns them.
        replacements: by column, the number that stands for null. There is no default: 0 is the
            worst value of one channel and the best of another.

    Raises:
        ValueError: a column has a null and no replacement, or a replacement has no column.
    """
    unknown = sorted(set(replacements) - set(columns))
    if unknown:
        raise ValueError(f"a replacement is given for {unknown[0]!r}, which is no column")
    filled: dict[str, list[float]] = {}
    for name, values in columns.items():
        filled[name] = [_number(name, value, replacements) for value in values]
        if name in replacements:
            filled[f"{name}_null"] = [float(value is None) for value in values]
    return filled


def _number(name: str, value: float | None, replacements: Mapping[str, float]) -> float:
    if value is not None:
        return value
    if name not in replacements:
        raise ValueError(f"{name} is null for an item: say in replacements what stands for it")
    return replacements[name]
