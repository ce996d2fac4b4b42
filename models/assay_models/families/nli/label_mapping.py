"""The meaning of a checkpoint's logits: one, two or three labels, found by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations

from assay_models.base import Raw, Truncation
from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.check import Check
from assay_models.families.classifier.outputs import Outputs
from assay_models.families.classifier.token_sequence import TokenSequence
from assay_models.items import LABELS, Label
from assay_models.shaping import probabilities

BINARY: tuple[Label, ...] = ("entailment", "not_entailment")
_ALIASES: Mapping[str, Label] = {
    **dict.fromkeys(("entailment", "entail", "entails", "entailed"), "entailment"),
    **dict.fromkeys(("supported", "consistent", "consistency"), "entailment"),
    "neutral": "neutral",
    **dict.fromkeys(
        ("contradiction", "contradict", "contradicts", "contradicted"), "contradiction"
    ),
    **dict.fromkeys(("not_entailment", "not_entailed", "non_entailment"), "not_entailment"),
    **dict.fromkeys(("not_supported", "unsupported", "inconsistent"), "not_entailment"),
}
# The mean probability of the right labels must be higher by this under another order.
MIN_IMPROVEMENT = 0.1
_PREMISE = "A man in a red jacket is riding a horse along the beach."
PROBES: tuple[tuple[str, str, Label], ...] = (
    (_PREMISE, "A man is riding a horse.", "entailment"),
    (_PREMISE, "The man is going to visit his sister.", "neutral"),
    (_PREMISE, "Nobody is riding a horse.", "contradiction"),
    ("Two children are sleeping in a tent.", "Children are asleep.", "entailment"),
    ("Two children are sleeping in a tent.", "The children are brothers.", "neutral"),
    (
        "Two children are sleeping in a tent.",
        "The children are awake and running.",
        "contradiction",
    ),
    ("The old bridge was closed on Monday.", "The bridge was closed.", "entailment"),
    ("The old bridge was closed on Monday.", "The bridge will be painted blue.", "neutral"),
    ("The old bridge was closed on Monday.", "The bridge was open on Monday.", "contradiction"),
)
"""Pairs with obvious labels, for checkpoints that read English."""


@dataclass(frozen=True, slots=True)
class LabelMapping:
    """The labels of a checkpoint's logits.

    `labels` are the outcomes that it distinguishes; `order` holds the place of each among the
    logits. A head with one logit has the log-odds of entailment, to which the other outcome's 0 is
    added.
    """

    labels: tuple[Label, ...]
    order: tuple[int, ...]

    def logits(self, raw: Raw) -> list[float]:
        """Return the logits in the order of `labels`."""
        if len(self.order) == 1:
            return [raw[0], 0.0]
        return [raw[place] for place in self.order]


def map_labels(card: ModelCard, names: Sequence[str]) -> LabelMapping:
    """Map the labels of a checkpoint whose logits have these names.

    Raises:
        CardError: the names do not say what each logit means; the text says what to write.
    """
    canonical = _canonical(names)
    for labels in (LABELS, BINARY, BINARY[:1]):
        if len(canonical) == len(labels) and set(canonical) == set(labels):
            order = tuple(canonical.index(label) for label in labels)
            return LabelMapping(labels if len(labels) > 1 else BINARY, order)
    raise CardError(
        f"{card.id}: the labels {', '.join(names)} do not say what the logits mean: find the order "
        "in which the checkpoint was trained, and write it in options.labels, as "
        '["entailment", "neutral", "contradiction"], ["entailment", "not_entailment"], or '
        '["entailment"] for one logit'
    )


def refuse_other_names(card: ModelCard, configured: Sequence[str]) -> None:
    """Refuse a card whose labels are not those of the checkpoint's config, where that has names.

    Args:
        card: it may name labels in `options.labels`.
        configured: the names in the config, in the order of the logits.

    Raises:
        CardError: both name the labels, and not in the same order.
    """
    named = card.options.get("labels")
    own = _canonical(configured)
    if named is not None and None not in own and _canonical(named) != own:
        raise CardError(
            f"{card.id}: options.labels says {', '.join(named)}, the checkpoint's config "
            f"{', '.join(configured)}: find out which of them is right"
        )


def refuse_other_heads(card: ModelCard, outputs: Outputs) -> None:
    """Refuse a head whose logits are no log-odds of labels that exclude each other.

    Args:
        card: the card of the checkpoint.
        outputs: its outputs. A single logit of independent labels is the log-odds of entailment.

    Raises:
        CardError: the outputs are a regression's numbers, or several independent labels.
    """
    several = len(outputs.labels) > 1
    if outputs.problem_type == "regression" or (
        several and outputs.problem_type == "multi_label_classification"
    ):
        right = "single_label_classification" if several else "multi_label_classification"
        raise CardError(
            f"{card.id}: the checkpoint's problem_type is {outputs.problem_type}: its outputs are "
            "not the logits of entailment against the other labels. Serve it by the family "
            f"sequence_classifier, or write options.problem_type = {right!r} if config.json is "
            "wrong"
        )


def label_check(
    card: ModelCard,
    mapping: LabelMapping,
    encode: Callable[[str, str, Truncation], TokenSequence],
) -> Check:
    """Return the check that refuses labels under which the probes fit worse than under others.

    Args:
        card: the card with these labels.
        mapping: the labels of its checkpoint.
        encode: encodes a pair of premise and hypothesis.

    Raises:
        CardError: by the check: another order of the labels, or the other sign of one logit,
            clearly fits better.
    """
    inputs = tuple(encode(premise, claim, "right").input() for premise, claim, _ in PROBES)
    return Check(inputs, partial(_refuse_wrong_order, card, mapping))


def _refuse_wrong_order(card: ModelCard, mapping: LabelMapping, raws: Sequence[Raw]) -> None:
    rows = [probabilities(mapping.logits(raw)) for raw in raws]
    labels = mapping.labels
    fits = {order: _fit(rows, order) for order in permutations(labels)}
    best = max(fits, key=lambda order: fits[order])
    if fits[best] > fits[labels] + MIN_IMPROVEMENT:
        right = [best[labels.index(label)] for label in _in_logit_order(mapping)]
        raise CardError(
            f"{card.id}: obvious pairs are classified wrong with the labels in this order; right "
            f"would be {', '.join(right)}. Mend options.labels, or set options.probes = false if "
            "the checkpoint reads no plain English"
        )


def _canonical(names: Sequence[str]) -> list[Label | None]:
    return [_ALIASES.get("_".join(name.lower().replace("-", " ").split())) for name in names]


def _fit(rows: Sequence[Sequence[float]], order: Sequence[Label]) -> float:
    """Return the mean probability of the right label, if the outcomes were those of `order`."""
    total = 0.0
    for row, (_, _, label) in zip(rows, PROBES, strict=True):
        right = label if label in order or label == "entailment" else "not_entailment"
        total += row[list(order).index(right)]
    return total / len(rows)


def _in_logit_order(mapping: LabelMapping) -> list[Label]:
    """Return the labels in the order of the logits."""
    by_place = dict(zip(mapping.order, mapping.labels, strict=False))
    return [by_place[place] for place in sorted(by_place)]
