"""How far to trust the higher of two scores: an isotonic map from the distance of two raws.

Fitted on held-out pairs of programs that were written for the problem (natural dev). How well the
map keeps its word is measured on problems that it was not fitted on, by cross-validation.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold

from assay_models.card import Calibration
from recipes.code.command import parsed, parser_of
from recipes.code.evaluate import DATASETS, pairs_of, score_programs
from recipes.measure import cluster_bootstrap, load_embedded, pair_accuracy

EXAMPLE = "python -m recipes.code.calibrate --data ../shared/data --check"
COMMAND = "python -m recipes.code.calibrate --data ../shared/data --check"
FOLDS = 10
TOLERANCE = 0.01
DIGITS = 3


def fitted(distances: NDArray[np.float64], won: NDArray[np.float64]) -> Calibration:
    """The map for pairs at these distances, `won` where the higher one is right.

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


def kept_word(
    distances: NDArray[np.float64], won: NDArray[np.float64], problems: Sequence[str]
) -> NDArray[np.float64]:
    """The confidence of each pair by a map fitted on the other problems."""
    told = np.empty(len(won))
    for others, own in GroupKFold(FOLDS).split(distances, groups=problems):
        known = fitted(distances[others], won[others])
        told[own] = [known.of(distance) for distance in distances[own]]
    return told


def main() -> None:
    """Parse the command line, fit, print the map and how well it keeps its word."""
    parser = parser_of(__doc__, EXAMPLE, "model", "check", "batch_size")
    arguments = parsed(parser)
    card, model = load_embedded(arguments.model)
    pairs = pairs_of(DATASETS[0], arguments.data)
    scores = score_programs(model, pairs, arguments.batch_size)
    told = [
        (pair, scores[pair.prompt, pair.chosen], scores[pair.prompt, pair.rejected])
        for pair in pairs
    ]
    known = [
        (pair.problem, better.raw - worse.raw)
        for pair, better, worse in told
        if better and worse and better.raw is not None and worse.raw is not None
    ]
    problems = [problem for problem, _ in known]
    margins = np.array([margin for _, margin in known])
    distances, won = np.abs(margins), (np.sign(margins) + 1) / 2
    calibration = fitted(distances, won)
    print("[calibration]")
    print(f"margins = {list(calibration.margins)}")
    print(f"confidence = {list(calibration.confidence)}")
    print(f'dataset = "{calibration.dataset}"\nn = {calibration.n}\ncommand = "{COMMAND}"')
    cross = kept_word(distances, won, problems)
    _tell("Brier score", cross, won, problems)
    for low, high in ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 1.01)):
        chosen = np.flatnonzero((cross >= low) & (cross < high))
        if len(chosen):
            seen = pair_accuracy(
                (2 * won[chosen] - 1).tolist(), [problems[place] for place in chosen]
            )
            said = f"said {low:.1f} to {min(high, 1.0):.1f}, mean {cross[chosen].mean():.3f}"
            print(f"{said}: was {seen}")
    if arguments.check:
        raise SystemExit(_complaint(card.calibration, calibration))


def _tell(
    name: str, told: NDArray[np.float64], won: NDArray[np.float64], problems: Sequence[str]
) -> None:
    loss, base = (told - won) ** 2, (won.mean() - won) ** 2
    figure = cluster_bootstrap(lambda rows: float(loss[rows].mean()), problems)
    gain = cluster_bootstrap(lambda rows: float((base - loss)[rows].mean()), problems)
    print(f"{name} {figure}; better than one confidence for all by {gain}")


def _complaint(stated: Calibration | None, found: Calibration) -> str | int:
    if stated is None:
        return "the card has no calibration"
    points = np.linspace(0.0, max(*stated.margins, *found.margins), 200)
    far = max(abs(stated.of(point) - found.of(point)) for point in points)
    return f"the card's map is off by {far:.3f}" if far > TOLERANCE else 0


if __name__ == "__main__":
    main()
