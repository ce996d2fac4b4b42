"""Hold a card against what was just measured, and write its rows the way a card spells them."""

import json
from collections.abc import Sequence

import numpy as np

from assay_models.base import Score
from assay_models.card import ModelCard, Quality, Reference

BASELINE_SLACK = 5
"""How much further a baseline may be off: its solver's last steps depend on the threads."""

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def statistics(scores: Sequence[Score]) -> Reference:
    """Count, mean, population deviation and quantiles of served scores, to four digits."""
    values = np.array([one.score for one in scores])
    quantiles = {str(q): round(float(np.quantile(values, q)), 4) for q in QUANTILES}
    mean, deviation = round(float(values.mean()), 4), round(float(values.std()), 4)
    return Reference(n=len(values), mean=mean, std=deviation, quantiles=quantiles)


def differences(
    card: ModelCard,
    rows: Sequence[Quality],
    reference: Reference,
    tolerance: float,
    reference_tolerance: float,
) -> list[str]:
    """What on the card is not what was measured, beyond the tolerances."""
    measured = {_key(row): row for row in rows}
    told = {_key(row) for row in card.quality}
    found = [f"not on the card: {key}" for key in measured if key not in told]
    for row in card.quality:
        other = measured.get(_key(row))
        if other is None or other.n != row.n or _farthest(row, other) > tolerance:
            found.append(f"card {row.dataset}, {row.metric}: {row.value}; measured: {other}")
    if card.reference is None or _apart(card.reference, reference) > reference_tolerance:
        found.append(f"reference.json: {card.reference}; measured: {reference}")
    return found


def refuse(problems: Sequence[str]) -> None:
    """End the program with the problems, if there are any.

    Raises:
        SystemExit: the card differs from what was measured.
    """
    if problems:
        raise SystemExit("\n".join(["the card differs from what was measured:", *problems]))
    print("\nthe card's figures are those measured")


def as_toml(row: Quality) -> str:
    """One row as it stands on the card."""
    baselines = ", ".join(
        f"{{ name = {json.dumps(one.name)}, value = {one.value} }}" for one in row.baselines
    )
    lines = [
        "[[quality]]",
        f"dataset = {json.dumps(row.dataset)}",
        f"metric = {json.dumps(row.metric)}",
        f"value = {row.value}\nlow = {row.low}\nhigh = {row.high}\nn = {row.n}",
        f"baselines = [{baselines}]" if baselines else "",
        f"note = {json.dumps(row.note)}" if row.note else "",
        f"command = {json.dumps(row.command)}",
        "headline = true" if row.headline else "",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _key(row: Quality) -> tuple[str, str]:
    return row.dataset, row.metric


def _farthest(row: Quality, other: Quality) -> float:
    if [one.name for one in row.baselines] != [one.name for one in other.baselines]:
        return float("inf")
    pairs = [(row.value, other.value), (row.low, other.low), (row.high, other.high)]
    beside = [(a.value, b.value) for a, b in zip(row.baselines, other.baselines, strict=True)]
    figures = [abs(left - right) for left, right in pairs]
    return max(figures + [abs(left - right) / BASELINE_SLACK for left, right in beside])


def _apart(card: Reference, measured: Reference) -> float:
    if (card.n, card.quantiles.keys()) != (measured.n, measured.quantiles.keys()):
        return float("inf")
    pairs = [(card.mean, measured.mean), (card.std, measured.std)]
    pairs += [(card.quantiles[name], value) for name, value in measured.quantiles.items()]
    return max(abs(left - right) for left, right in pairs)
