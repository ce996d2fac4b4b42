"""The figures of `nli`: how each is computed, for the model and for a baseline alike."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from assay_models.card import Baseline, Quality
from recipes.measure import Figure, cluster_bootstrap, pair_accuracy
from recipes.nli.calibration import Floats, Integers, expected_calibration_error
from recipes.nli.data import LABELS, Pair

Statistic = Callable[[Integers, Integers], float]
"""From predicted and true labels to a number."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Pairs with their probabilities [pairs, labels], by the model and by each baseline."""

    pairs: tuple[Pair, ...]
    model: Floats
    baselines: dict[str, Floats]

    def where(self, keep: Callable[[Pair], bool]) -> "Judged":
        """The pairs that `keep` keeps."""
        rows = np.array([at for at, pair in enumerate(self.pairs) if keep(pair)], dtype=np.int64)
        return Judged(
            tuple(self.pairs[at] for at in rows),
            self.model[rows],
            {name: values[rows] for name, values in self.baselines.items()},
        )

    def of(self, field: str, value: str) -> "Judged":
        """The pairs whose `source` or `label` is `value`."""
        return self.where(lambda pair: getattr(pair, field) == value)

    @property
    def labels(self) -> Integers:
        """The true labels, as places in LABELS."""
        return np.array([LABELS.index(pair.label) for pair in self.pairs], dtype=np.int64)

    @property
    def premises(self) -> list[str]:
        """What the pairs are clustered by."""
        return [pair.premise for pair in self.pairs]


def accuracy(predicted: Integers, true: Integers) -> float:
    """The share of right labels."""
    return float((predicted == true).mean())


def macro_f1(predicted: Integers, true: Integers) -> float:
    """The mean F1 of the labels that occur, predicted or true."""
    width = len(LABELS)
    table = np.bincount(true * width + predicted, minlength=width * width).reshape(width, width)
    sums = table.sum(axis=0) + table.sum(axis=1)
    seen = sums > 0
    return float((2 * np.diag(table)[seen] / sums[seen]).mean())


def entailed_or_not(predicted: Integers, true: Integers) -> float:
    """The share of right answers to "is it entailed?"."""
    return float(((predicted == 0) == (true == 0)).mean())


def share_of(label: str) -> Statistic:
    """The share of pairs that are judged to be of `label`, whatever is true."""
    place = LABELS.index(label)
    return lambda predicted, true: float((predicted == place).mean())


def label_row(
    judged: Judged, dataset: str, metric: str, statistic: Statistic, note: str = ""
) -> Quality:
    """A figure of predicted labels, whole premises resampled, beside the baselines'."""
    true, predicted = judged.labels, judged.model.argmax(axis=1)
    figure = cluster_bootstrap(lambda rows: statistic(predicted[rows], true[rows]), judged.premises)
    trivial = {
        name: statistic(values.argmax(axis=1), true) for name, values in judged.baselines.items()
    }
    return _row(dataset, metric, figure, trivial, note)


def calibration_row(judged: Judged, dataset: str, metric: str, note: str) -> Quality:
    """The expected calibration error with 15 bins."""
    true = judged.labels
    figure = cluster_bootstrap(
        lambda rows: expected_calibration_error(judged.model[rows], true[rows]), judged.premises
    )
    return _row(dataset, metric, figure, {}, note)


def order_row(judged: Judged, dataset: str, worse: str) -> Quality:
    """Does the entailed hypothesis score above the `worse` one of the same premise?"""
    couples = list(_couples(judged.pairs, worse))
    clusters = [judged.pairs[better].premise for better, _ in couples]
    figure = pair_accuracy(_margins(judged.model, couples), clusters)
    trivial = {
        name: pair_accuracy(_margins(values, couples), clusters).value
        for name, values in judged.baselines.items()
    }
    metric = f"pair accuracy, entailed above {worse}, same premise"
    return _row(dataset, metric, figure, trivial, "")


def _couples(pairs: Sequence[Pair], worse: str) -> Iterator[tuple[int, int]]:
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, pair in enumerate(pairs):
        places[pair.premise, pair.label].append(at)
    for (premise, label), better in list(places.items()):
        if label == "entailment":
            for one in better:
                for other in places.get((premise, worse), ()):
                    yield one, other


def _margins(probabilities: Floats, couples: Sequence[tuple[int, int]]) -> list[float]:
    odds = np.log(probabilities[:, 0]) - np.log(probabilities[:, 1:].sum(axis=1))
    return [float(odds[better] - odds[other]) for better, other in couples]


def _row(
    dataset: str, metric: str, figure: Figure, baselines: dict[str, float], note: str
) -> Quality:
    return Quality(
        dataset=dataset,
        metric=metric,
        value=round(figure.value, 4),
        low=round(figure.low, 4),
        high=round(figure.high, 4),
        n=figure.n,
        baselines=tuple(
            Baseline(name=name, value=round(value, 4)) for name, value in baselines.items()
        ),
        note=note,
        command="",  # the program that measures says how it was called
    )
