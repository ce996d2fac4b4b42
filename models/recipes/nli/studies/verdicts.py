"""The verdicts of a back-end on the probe set: distributions of its labels and of its rewards."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from assay_models.families.nli.claims import ClaimVerdict, phi
from assay_models.items import LABELS
from assay_monitors.health import FiringRule, firing_rules
from assay_monitors.observations import Observation
from assay_monitors.summaries import Point, summarise
from recipes.measure import Estimate, cluster_bootstrap
from recipes.nli.calibration import Floats, Integers

GATE = 0.65
"""The study's: a verdict that is less sure counts as neutral (arXiv 2605.25988)."""

FLAT = 0.01
"""A group whose phi has a standard deviation below this gives next to no training signal."""

_NEUTRAL = LABELS.index("neutral")


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The verdict on each claim of each group; all arrays are [groups, claims].

    The true label of a claim is its index in the group.

    Attributes:
        labels: as indices in LABELS.
        confidence: of each verdict, 0 to 1.
        rewards: phi of each claim as an answer of one claim.
    """

    labels: Integers
    confidence: Floats
    rewards: Floats

    @classmethod
    def from_probabilities(cls, probabilities: Floats, gate: float = 0.0) -> "Verdicts":
        """Take the most likely label of each claim, neutral where it is less sure than the gate.

        Args:
            probabilities: [groups, claims, labels].
            gate: none by default.
        """
        confidence = probabilities.max(axis=-1)
        labels = np.where(confidence < gate, _NEUTRAL, probabilities.argmax(axis=-1))
        phis = [
            phi([ClaimVerdict(LABELS[int(label)], float(sure))]).clipped
            for label, sure in zip(labels.flat, confidence.flat, strict=True)
        ]
        return cls(labels, confidence, np.array(phis).reshape(labels.shape))

    def of_groups(self, rows: Integers) -> "Verdicts":
        """Return the verdicts on some of the groups."""
        return Verdicts(self.labels[rows], self.confidence[rows], self.rewards[rows])


Metric = Callable[[Verdicts], float]


def share(verdicts: Verdicts, label: str) -> float:
    """Return the share of claims under a label."""
    return float((verdicts.labels == LABELS.index(label)).mean())


def top_share(verdicts: Verdicts) -> float:
    """Return the share of the most frequent label."""
    return max(share(verdicts, label) for label in LABELS)


def entropy(verdicts: Verdicts) -> float:
    """Return Shannon's entropy of the shares of the labels, in bits; at most 1.585."""
    shares = [share(verdicts, label) for label in LABELS]
    return float(sum(-value * np.log2(value) for value in shares if value))


def accuracy(verdicts: Verdicts) -> float:
    """Return the share of right labels; 1/3 by chance, for the probe set is balanced."""
    return float((verdicts.labels == np.arange(len(LABELS))).mean())


def spread(verdicts: Verdicts) -> float:
    """Return the mean over groups of the standard deviation of phi within the group."""
    return float(verdicts.rewards.std(axis=1).mean())


def flat_share(verdicts: Verdicts) -> float:
    """Return the share of groups whose phi hardly differs."""
    return float((verdicts.rewards.std(axis=1) < FLAT).mean())


METRICS: dict[str, Metric] = {
    "entropy, bits": entropy,
    "top label": top_share,
    "accuracy": accuracy,
    "std of phi in a group": spread,
    "flat groups": flat_share,
}


def estimates(verdicts: Verdicts) -> Iterator[tuple[str, Estimate]]:
    """Yield each metric with its 95 % interval, whole groups resampled."""
    names = [str(group) for group in range(len(verdicts.labels))]
    for name, metric in METRICS.items():
        yield name, cluster_bootstrap(_of_rows(metric, verdicts), names)


def _of_rows(metric: Metric, verdicts: Verdicts) -> Callable[[Integers], float]:
    return lambda rows: metric(verdicts.of_groups(rows))


def fired_rules(verdicts: Verdicts, names: Sequence[str]) -> list[FiringRule]:
    """Return the rules of run health that fire when the probe set is one step of a run.

    The claims on one piece of evidence are a group.
    """
    rewards = verdicts.rewards
    observations = [
        Observation(
            float(rewards[index]),
            channels={"phi": float(rewards[index])},
            labels={LABELS[int(verdicts.labels[index])]: 1},
            group=names[index[0]],
        )
        for index in np.ndindex(verdicts.labels.shape)
    ]
    return firing_rules([Point(0, summarise(observations))])
