"""The meaning of a head's outputs: classes of one softmax, independent labels, or plain numbers."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from assay_models.base import Raw
from assay_models.card import CardError, ModelCard
from assay_models.shaping import log_odds, probabilities, sigmoid

logger = logging.getLogger(__name__)

REWARD = "reward"
"""The channel of a score that is no output of its own."""

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
"""The names of Transformers: one softmax over all outputs, a sigmoid of each, or neither."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of one head, in the order of its logits.

    `problem_type` is None where neither the checkpoint nor the card states one. Several outputs are
    then the classes of one softmax, and a single one is a logit, as in Transformers' pipeline.
    """

    labels: tuple[str, ...]
    problem_type: ProblemType | None

    @property
    def have_probabilities(self) -> bool:
        """Whether an output stands for a probability, whose log-odds are its raw."""
        return self.problem_type != "regression"

    def values(self, logits: Raw) -> list[float]:
        """Return what Transformers' pipeline serves for each of several outputs."""
        if self.problem_type == "regression":
            return list(logits)
        if self.problem_type == "multi_label_classification":
            return [sigmoid(logit) for logit in logits]
        return probabilities(logits)

    def raw(self, logits: Raw, index: int) -> float:
        """Return the log-odds of one output's probability, or a regression's output itself."""
        if len(logits) > 1 and self.problem_type in (None, "single_label_classification"):
            return log_odds(logits, index)
        return logits[index]


@dataclass(frozen=True, slots=True)
class Mix:
    """The score that a card makes of a head: one output, or a weighted sum of several.

    `index` is None for a sum; `weights` then has one number for each output.
    """

    outputs: Outputs
    index: int | None
    weights: tuple[float, ...] = ()

    def raw(self, logits: Raw) -> float:
        """Return the output's raw, or the sum over all outputs of weight times value."""
        if self.index is not None:
            return self.outputs.raw(logits, self.index)
        values = self.outputs.values(logits)
        return math.fsum(map(math.prod, zip(self.weights, values, strict=True)))

    def channels(self, logits: Raw, score: float) -> dict[str, float]:
        """Return the score, or the value of each output; the score's channel comes first."""
        labels = self.outputs.labels
        if len(labels) == 1:
            return {REWARD: score}
        values = dict(zip(labels, self.outputs.values(logits), strict=True))
        if self.index is None:
            return {REWARD: score, **values}
        return {labels[self.index]: values[labels[self.index]], **values}

    def details(self, channels: Mapping[str, float]) -> dict[str, Any]:
        """Return what else a reply says: the probabilities of several labels, or that the raw is a
        value and no log-odds."""
        if self.index is None or not self.outputs.have_probabilities:
            return {"scale": "value"}
        return {"probabilities": channels} if len(channels) > 1 else {}


def read_outputs(
    card: ModelCard, config: Any, labels: Sequence[str] | None, problem_type: ProblemType | None
) -> Outputs:
    """Read the outputs of a checkpoint whose config Transformers has parsed.

    Args:
        card: the card that serves it.
        config: its config.
        labels: the names by the card, which come first.
        problem_type: the problem type by the card, which comes first.

    Raises:
        CardError: the names are not one for each output, or the problem type is unknown.
    """
    given = labels or [config.id2label.get(index) for index in range(config.num_labels)]
    names = tuple(str(name) for name in given if name is not None)
    if not len(names) == len(set(names)) == config.num_labels:
        raise CardError(
            f"{card.id}: {config.num_labels} logits need as many different labels: mend id2label "
            "in config.json, or write options.labels"
        )
    stated = problem_type or config.problem_type
    if stated not in (None, *get_args(ProblemType)):
        raise CardError(
            f"{card.id}: config.json has the problem_type {stated!r}: set options.problem_type to "
            f"one of {', '.join(get_args(ProblemType))}"
        )
    return Outputs(names, cast(ProblemType | None, stated))


def choose_mix(
    card: ModelCard, outputs: Outputs, label: str | None, weights: Mapping[str, float] | None
) -> Mix:
    """Return what the card makes of the outputs.

    Args:
        card: the card, for its name.
        outputs: the outputs of its checkpoint.
        label: the output that is the score.
        weights: the weight of each output in the score, by name; those left out weigh nothing.

    Raises:
        CardError: there are several outputs and the card does not say how they make one score, or
            it names one that does not exist.
    """
    labels = outputs.labels
    named = list(weights or ()) if label is None else [label]
    unknown = [name for name in named if name not in labels]
    if len(labels) == 1 and not named:
        return Mix(outputs, 0)
    if len(labels) == 1 or len(named) == 0 or unknown or None not in (label, weights):
        raise CardError(f"{card.id}: {_remedy(outputs, unknown)}")
    _refuse_guess(card, outputs, weights)
    if label is not None:
        return Mix(outputs, labels.index(label))
    return Mix(outputs, None, tuple((weights or {}).get(name, 0.0) for name in labels))


def _refuse_guess(card: ModelCard, outputs: Outputs, weights: Mapping[str, float] | None) -> None:
    if weights is not None and REWARD in outputs.labels:
        raise CardError(
            f"{card.id}: the weighted sum is the channel {REWARD!r}, and an output has this name: "
            "rename the outputs in options.labels"
        )
    if outputs.problem_type is not None:
        return
    if weights is not None:
        raise CardError(
            f"{card.id}: options.weights needs options.problem_type, which config.json does not "
            f"state: one of {', '.join(get_args(ProblemType))}"
        )
    logger.warning(
        "%s: its config states no problem_type; its %s outputs are taken for the classes of one "
        "softmax, as in Transformers, unless options.problem_type says otherwise",
        card.id,
        len(outputs.labels),
    )


def _remedy(outputs: Outputs, unknown: Sequence[str]) -> str:
    labels = outputs.labels
    if len(labels) == 1:
        return f"there is no choice among outputs, {labels[0]} is the only one"
    problem = f"no choice of {unknown[0]!r} among" if unknown else "no score is named among"
    kind = outputs.problem_type or "problem_type not stated"
    return (
        f"{problem} its {len(labels)} outputs ({kind}): {', '.join(labels)}. Name one in "
        f'options.score_label (as "{labels[0]}") or weigh several in options.weights (as '
        f'{{ "{labels[0]}" = 0.7, "{labels[1]}" = 0.3 }}), not both; each is a channel of the reply'
    )
