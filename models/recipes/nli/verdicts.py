"""What a back-end says of a bank, as figures: how its labels and its rewards are distributed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from assay_models.families.nli.claims import Verdict, phi
from assay_models.items import LABELS
from assay_monitors.health import Alert, alerts
from assay_monitors.observations import Observation
from assay_monitors.summaries import Point, summarise
from recipes.measure import Figure, cluster_bootstrap
from recipes.nli.calibration import Floats, Integers

GATE = 0.65
"""The study's: a verdict that is less sure counts as neutral (arXiv 2605.25988)."""

FLAT = 0.01
"""A group whose phi has a standard deviation below this teaches next to nothing."""

_NEUTRAL = LABELS.index("neutral")


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What is said of each claim of each group; all arrays are [groups, claims].

    The true label of a claim is its place in the group.

    Attributes:
        labels: as places in LABELS.
        confidence: how sure each is, 0 to 1.
        rewards: phi of each claim as an answer of one claim.
    """

    labels: Integers
    confidence: Floats
    rewards: Floats

    @classmethod
    def of(cls, probabilities: Floats, gate: float = 0.0) -> "Verdicts":
        """The likeliest label of each claim, neutral where it is less sure than the gate.

        Args:
            probabilities: [groups, claims, labels].
            gate: none by default.
        """
        confidence = probabilities.max(axis=-1)
        labels = np.where(confidence < gate, _NEUTRAL, probabilities.argmax(axis=-1))
        phis = [
            phi([Verdict(LABELS[int(label)], float(sure))]).clipped
            for label, sure in zip(labels.flat, confidence.flat, strict=True)
        ]
        return cls(labels, confidence, np.array(phis).reshape(labels.shape))

    def at(self, rows: Integers) -> "Verdicts":
        """Some of the groups."""
        return Verdicts(self.labels[rows], self.confidence[rows], self.rewards[rows])


Measure = Callable[[Verdicts], float]


def share(verdicts: Verdicts, label: str) -> float:
    """The share of claims under a label."""
    return float((verdicts.labels == LABELS.index(label)).mean())


def top_share(verdicts: Verdicts) -> float:
    """The share of the most frequent label."""
    return max(share(verdicts, label) for label in LABELS)


def entropy(verdicts: Verdicts) -> float:
    """Shannon's, of the shares of the labels, in bits; at most 1.585."""
    shares = [share(verdicts, label) for label in LABELS]
    return float(sum(-one * np.log2(one) for one in shares if one))


def accuracy(verdicts: Verdicts) -> float:
    """The share of right labels; 1/3 by chance, for the bank is balanced."""
    return float((verdicts.labels == np.arange(len(LABELS))).mean())


def spread(verdicts: Verdicts) -> float:
    """The mean over groups of the standard deviation of phi within the group."""
    return float(verdicts.rewards.std(axis=1).mean())


def flat_groups(verdicts: Verdicts) -> float:
    """The share of groups whose phi hardly differs."""
    return float((verdicts.rewards.std(axis=1) < FLAT).mean())


MEASURES: dict[str, Measure] = {
    "entropy, bits": entropy,
    "top label": top_share,
    "accuracy": accuracy,
    "std of phi in a group": spread,
    "flat groups": flat_groups,
}


def figures(verdicts: Verdicts) -> Iterator[tuple[str, Figure]]:
    """Each measure with its 95 % interval, whole groups resampled."""
    names = [str(group) for group in range(len(verdicts.labels))]
    for name, measure in MEASURES.items():
        yield name, cluster_bootstrap(_of_rows(measure, verdicts), names)


def _of_rows(measure: Measure, verdicts: Verdicts) -> Callable[[Integers], float]:
    return lambda rows: measure(verdicts.at(rows))


def diagnosis(verdicts: Verdicts, names: Sequence[str]) -> list[Alert]:
    """The rules of run health that fire on the bank as one step of a run, one group an evidence."""
    rewards = verdicts.rewards
    observed = [
        Observation(
            float(rewards[place]),
            channels={"phi": float(rewards[place])},
            labels={LABELS[int(verdicts.labels[place])]: 1},
            group=names[place[0]],
        )
        for place in np.ndindex(verdicts.labels.shape)
    ]
    return alerts([Point(0, summarise(observed))])
