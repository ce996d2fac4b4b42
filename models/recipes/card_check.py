"""Comparison of a card with new measurements, and card rows as TOML."""

import json
from collections.abc import Sequence

import numpy as np

from assay_models.base import Score
from assay_models.card import ModelCard, Quality, Reference

BASELINE_SLACK = 5
"""Factor on the tolerance of a baseline: its solver's last steps depend on the threads."""

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def statistics(scores: Sequence[Score]) -> Reference:
    """Return count, mean, population deviation and quantiles of served scores, to four digits."""
    values = np.array([score.score for score in scores])
    quantiles = {str(q): round(float(np.quantile(values, q)), 4) for q in QUANTILES}
    mean, deviation = round(float(values.mean()), 4), round(float(values.std()), 4)
    return Reference(n=len(values), mean=mean, std=deviation, quantiles=quantiles)


def differences(
    card: ModelCard,
    rows: Sequence[Quality],
    *,
    reference: Reference,
    tolerance: float,
    reference_tolerance: float,
) -> list[str]:
    """List the rows and statistics where card and measurement differ by more than the tolerances.

    Args:
        card: the card.
        rows: the measured quality rows.
        reference: the measured statistics of the score.
        tolerance: of a value and its interval; five times as much for a baseline.
        reference_tolerance: of each statistic of the score.
    """
    measured = {_key(row): row for row in rows}
    stated = {_key(row) for row in card.quality}
    found = [f"not on the card: {key}" for key in measured if key not in stated]
    for row in card.quality:
        other = measured.get(_key(row))
        if other is None or other.n != row.n or _row_difference(row, other) > tolerance:
            found.append(f"card {row.dataset}, {row.metric}: {row.value}; measured: {other}")
    stored = card.reference
    if stored is None or _reference_difference(stored, reference) > reference_tolerance:
        found.append(f"reference.json: {stored}; measured: {reference}")
    return found


def exit_on(problems: Sequence[str]) -> None:
    """End the program with the problems, if there are any.

    Raises:
        SystemExit: the card differs from what was measured.
    """
    if problems:
        raise SystemExit("\n".join(["the card differs from what was measured:", *problems]))
    print("\nthe card's figures are those measured")


def as_toml(row: Quality) -> str:
    """Return one row as it stands on the card."""
    baselines = ", ".join(
        f"{{ name = {json.dumps(baseline.name)}, value = {baseline.value} }}"
        for baseline in row.baselines
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


def _row_difference(row: Quality, other: Quality) -> float:
    if [b.name for b in row.baselines] != [b.name for b in other.baselines]:
        return float("inf")
    values = [(row.value, other.value), (row.low, other.low), (row.high, other.high)]
    baselines = [(a.value, b.value) for a, b in zip(row.baselines, other.baselines, strict=True)]
    gaps = [abs(left - right) for left, right in values]
    return max(gaps + [abs(left - right) / BASELINE_SLACK for left, right in baselines])


def _reference_difference(card: Reference, measured: Reference) -> float:
    if (card.n, card.quantiles.keys()) != (measured.n, measured.quantiles.keys()):
        return float("inf")
    pairs = [(card.mean, measured.mean), (card.std, measured.std)]
    pairs += [(card.quantiles[name], value) for name, value in measured.quantiles.items()]
    return max(abs(left - right) for left, right in pairs)
