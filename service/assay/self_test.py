"""The self-test: the example of a card, prepared and scored when its model is loaded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from assay_models.base import ItemError, Options, Prepared, Raw, RewardModel
from assay_models.card import Example, ModelCard
from assay_models.registry import Family


class SelfTestFailed(Exception):
    """The loaded model does not compute the score that its card states, or its example has none;
    it is not served."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The card's example: the stated score, and the one computed at start."""

    expected: float
    got: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the two agree within the card's tolerance."""
        return math.isfinite(self.got) and abs(self.got - self.expected) <= self.tolerance


def prepare_example(model: RewardModel, card: ModelCard, family: Family) -> Prepared:
    """Prepare the card's example, or the family's.

    Raises:
        SelfTestFailed: it cannot be scored.
    """
    example = card.example
    fields = family.probe if example is None else example.item
    try:
        return model.prepare([family.item.model_validate(fields)], Options())
    except (ItemError, ValidationError) as error:
        reason = error.detail if isinstance(error, ItemError) else _summary(error)
        remedy = "mend it" if example else "give the card an example that can be scored"
        whose = "the card's" if example else "the family's"
        raise SelfTestFailed(f"{whose} example has no score: {reason}: {remedy}") from error


def score_example(
    model: RewardModel, example: Example, probe: Prepared, raws: Sequence[Raw]
) -> SelfTest:
    """Return the score of the prepared example beside the card's.

    Raises:
        SelfTestFailed: it has none.
    """
    try:
        (score,) = model.finish(probe, raws, Options())
    except ItemError as error:
        raise unscored(error) from error
    return SelfTest(example.score, score.score, example.tolerance)


def unscored(error: ItemError) -> SelfTestFailed:
    """Return the failure of an example that has no score."""
    return SelfTestFailed(f"the card's example has no score: {error.detail}")


def _summary(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    )
