"""Fit the confidence in the higher of two scores: an isotonic map from the distance of two raws.

It is fitted on held-out pairs of programs that were written for the problem (natural dev). Its
accuracy is measured by cross-validation on problems that it was not fitted on.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold

from assay_models.base import RewardModel
from assay_models.card import Calibration
from recipes.code.command_line import build_parser, parse_arguments
from recipes.code.evaluate import DATASETS, read_dataset, score_programs
from recipes.measure import cluster_bootstrap, load_model, pair_accuracy

EXAMPLE = "python -m recipes.code.calibrate --data ../shared/data --check"
COMMAND = "python -m recipes.code.calibrate --data ../shared/data --check"
FOLDS = 10
TOLERANCE = 0.01
DIGITS = 3
BINS = ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 1.01))


def fit_calibration(distances: NDArray[np.float64], won: NDArray[np.float64]) -> Calibration:
    """Fit the map for pairs at these distances; `won` is 1 where the higher one is right.

    One pair at the largest distance is taken to be lost, so that no confidence is 1.
    """
    regression = IsotonicRegression(y_min=0.5, y_max=1.0, out_of_bounds="clip")
    regression.fit([*distances, max(distances)], [*won, 0.0])
    margins, confidence = [0.0], [round(float(regression.predict([0.0])[0]), DIGITS)]
    for x, y in zip(regression.X_thresholds_, regression.y_thresholds_, strict=True):
        margin, value = round(float(x), DIGITS), round(float(y), DIGITS)
        if margin > margins[-1]:
            margins.append(margin)
            confidence.append(value)
    return Calibration(
        margins=tuple(margins),
        confidence=tuple(confidence),
        dataset=DATASETS[0].name,
        n=len(distances),
        command=COMMAND,
    )


def cross_validated_confidence(
    distances: NDArray[np.float64], won: NDArray[np.float64], problems: Sequence[str]
) -> NDArray[np.float64]:
    """Return the confidence of each pair by a map fitted on the other problems."""
    confidence = np.empty(len(won))
    for others, held_out in GroupKFold(FOLDS).split(distances, groups=problems):
        calibration = fit_calibration(distances[others], won[others])
        confidence[held_out] = [
            calibration.confidence_at(distance) for distance in distances[held_out]
        ]
    return confidence


def main() -> None:
    """Parse the command line, fit, print the map and its cross-validated accuracy."""
    parser = build_parser(__doc__, EXAMPLE, "model", "repository", "check", "batch_size")
    arguments = parse_arguments(parser)
    card, model = load_model(arguments.model, arguments.repository)
    margins, problems = read_margins(model, arguments.data, arguments.batch_size)
    distances, won = np.abs(margins), (np.sign(margins) + 1) / 2
    calibration = fit_calibration(distances, won)
    print("[calibration]")
    print(f"margins = {list(calibration.margins)}")
    print(f"confidence = {list(calibration.confidence)}")
    print(f'dataset = "{calibration.dataset}"\nn = {calibration.n}\ncommand = "{COMMAND}"')
    confidence = cross_validated_confidence(distances, won, problems)
    _print_brier_score(confidence, won, problems)
    _print_reliability(confidence, won, problems)
    if arguments.check:
        raise SystemExit(_difference_from_card(card.calibration, calibration))


def read_margins(
    model: RewardModel, data: Path, batch_size: int
) -> tuple[NDArray[np.float64], list[str]]:
    """Score natural dev; return the raw of the better side less that of the worse, and the problem,
    of each pair whose sides both have a raw."""
    pairs = read_dataset(DATASETS[0], data)
    scores = score_programs(model, pairs, batch_size)
    sides = [
        (pair, scores[pair.prompt, pair.chosen], scores[pair.prompt, pair.rejected])
        for pair in pairs
    ]
    known = [
        (pair.problem, better.raw - worse.raw)
        for pair, better, worse in sides
        if better and worse and better.raw is not None and worse.raw is not None
    ]
    return np.array([margin for _, margin in known]), [problem for problem, _ in known]


def _print_brier_score(
    confidence: NDArray[np.float64], won: NDArray[np.float64], problems: Sequence[str]
) -> None:
    loss, base = (confidence - won) ** 2, (won.mean() - won) ** 2
    score = cluster_bootstrap(lambda rows: float(loss[rows].mean()), problems)
    gain = cluster_bootstrap(lambda rows: float((base - loss)[rows].mean()), problems)
    print(f"Brier score {score}; better than one confidence for all by {gain}")


def _print_reliability(
    confidence: NDArray[np.float64], won: NDArray[np.float64], problems: Sequence[str]
) -> None:
    for low, high in BINS:
        rows = np.flatnonzero((confidence >= low) & (confidence < high))
        if len(rows):
            observed = pair_accuracy(
                (2 * won[rows] - 1).tolist(), [problems[row] for row in rows.tolist()]
            )
            mean = f"mean {confidence[rows].mean():.3f}"
            print(f"said {low:.1f} to {min(high, 1.0):.1f}, {mean}: was {observed}")


def _difference_from_card(stated: Calibration | None, fitted: Calibration) -> str | int:
    if stated is None:
        return "the card has no calibration"
    points = np.linspace(0.0, max(*stated.margins, *fitted.margins), 200)
    difference = max(
        abs(stated.confidence_at(point) - fitted.confidence_at(point)) for point in points
    )
    return f"the card's map is off by {difference:.3f}" if difference > TOLERANCE else 0


if __name__ == "__main__":
    main()
