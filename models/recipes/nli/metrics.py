"""The metrics of `nli`, computed alike for the model and for each baseline."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from assay_models.card import Baseline, Quality
from recipes.measure import Estimate, cluster_bootstrap, pair_accuracy
from recipes.nli.calibration import Floats, Integers, expected_calibration_error
from recipes.nli.data import LABELS, Pair

Statistic = Callable[[Integers, Integers], float]
"""From predicted and true labels to a number."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Pairs with their probabilities [pairs, labels], by the model and by each baseline."""

    pairs: tuple[Pair, ...]
    model: Floats
    baselines: dict[str, Floats]

    def where(self, keep: Callable[[Pair], bool]) -> "Predictions":
        """Return the pairs for which `keep` is true."""
        rows = np.array([at for at, pair in enumerate(self.pairs) if keep(pair)], dtype=np.int64)
        return Predictions(
            tuple(self.pairs[at] for at in rows),
            self.model[rows],
            {name: values[rows] for name, values in self.baselines.items()},
        )

    def with_field(self, field: str, value: str) -> "Predictions":
        """Return the pairs whose `source` or `label` is `value`."""
        return self.where(lambda pair: getattr(pair, field) == value)

    @property
    def labels(self) -> Integers:
        """The true labels, as indices in LABELS."""
        return np.array([LABELS.index(pair.label) for pair in self.pairs], dtype=np.int64)

    @property
    def premises(self) -> list[str]:
        """The premise of each pair, by which pairs are clustered."""
        return [pair.premise for pair in self.pairs]


def accuracy(predicted: Integers, true: Integers) -> float:
    """Return the share of right labels."""
    return float((predicted == true).mean())


def macro_f1(predicted: Integers, true: Integers) -> float:
    """Return the mean F1 of the labels that occur, predicted or true."""
    width = len(LABELS)
    table = np.bincount(true * width + predicted, minlength=width * width).reshape(width, width)
    sums = table.sum(axis=0) + table.sum(axis=1)
    occurs = sums > 0
    return float((2 * np.diag(table)[occurs] / sums[occurs]).mean())


def binary_accuracy(predicted: Integers, true: Integers) -> float:
    """Return the share of right answers to "is it entailed?"."""
    return float(((predicted == 0) == (true == 0)).mean())


def share_of(label: str) -> Statistic:
    """Return a statistic: the share of pairs predicted to be `label`, regardless of the truth."""
    index = LABELS.index(label)
    return lambda predicted, true: float((predicted == index).mean())


def label_row(
    predictions: Predictions, dataset: str, *, metric: str, statistic: Statistic, note: str = ""
) -> Quality:
    """Compute a statistic of predicted labels, whole premises resampled, beside the baselines'."""
    true, predicted = predictions.labels, predictions.model.argmax(axis=1)
    estimate = cluster_bootstrap(
        lambda rows: statistic(predicted[rows], true[rows]), predictions.premises
    )
    baselines = {
        name: statistic(values.argmax(axis=1), true)
        for name, values in predictions.baselines.items()
    }
    return _row(dataset, metric, estimate=estimate, baselines=baselines, note=note)


def calibration_row(predictions: Predictions, dataset: str, metric: str, note: str) -> Quality:
    """Compute the expected calibration error with 15 bins."""
    true = predictions.labels
    estimate = cluster_bootstrap(
        lambda rows: expected_calibration_error(predictions.model[rows], true[rows]),
        predictions.premises,
    )
    return _row(dataset, metric, estimate=estimate, baselines={}, note=note)


def order_row(predictions: Predictions, dataset: str, worse: str) -> Quality:
    """Compute how often an entailed hypothesis scores above the `worse` one of its premise."""
    couples = list(_couples(predictions.pairs, worse))
    clusters = [predictions.pairs[better].premise for better, _ in couples]
    estimate = pair_accuracy(_margins(predictions.model, couples), clusters)
    baselines = {
        name: pair_accuracy(_margins(values, couples), clusters).value
        for name, values in predictions.baselines.items()
    }
    metric = f"pair accuracy, entailed above {worse}, same premise"
    return _row(dataset, metric, estimate=estimate, baselines=baselines, note="")


def _couples(pairs: Sequence[Pair], worse: str) -> Iterator[tuple[int, int]]:
    indices: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, pair in enumerate(pairs):
        indices[pair.premise, pair.label].append(at)
    for (premise, label), entailed in list(indices.items()):
        if label == "entailment":
            for better in entailed:
                for other in indices.get((premise, worse), ()):
                    yield better, other


def _margins(probabilities: Floats, couples: Sequence[tuple[int, int]]) -> list[float]:
    odds = np.log(probabilities[:, 0]) - np.log(probabilities[:, 1:].sum(axis=1))
    return [float(odds[better] - odds[other]) for better, other in couples]


def _row(
    dataset: str, metric: str, *, estimate: Estimate, baselines: dict[str, float], note: str
) -> Quality:
    return Quality(
        dataset=dataset,
        metric=metric,
        value=round(estimate.value, 4),
        low=round(estimate.low, 4),
        high=round(estimate.high, 4),
        n=estimate.n,
        baselines=tuple(
            Baseline(name=name, value=round(value, 4)) for name, value in baselines.items()
        ),
        note=note,
        command="",  # set by the program that measures
    )
