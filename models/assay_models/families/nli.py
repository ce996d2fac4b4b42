"""Claims against evidence: a three-way cross-encoder, read for one pair or for a whole response."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.claims import LABELS, Label, Verdict, phi, shares, split_claims
from assay_models.families.classifier import Classifier, ClassifierOptions, Encoded
from assay_models.items import NliItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of
from assay_models.shaping import log_odds, probabilities

VERSION = 1
_ALIASES: Mapping[str, Label] = {
    "entailment": "entailment",
    "entail": "entailment",
    "entails": "entailment",
    "entailed": "entailment",
    "neutral": "neutral",
    "contradiction": "contradiction",
    "contradict": "contradiction",
    "contradicts": "contradiction",
    "contradicted": "contradiction",
}
_COMBINATIONS = (
    "give `premise` and `hypothesis`, or `evidence` and `claims`, or `evidence` and `response`"
)


class NliOptions(ClassifierOptions):
    """`[options]` of a card of this family, besides what every classifier takes.

    `temperature` divides the logits (Guo et al., 2017, arXiv 1706.04599). `max_pairs` bounds the
    forward passes of one item, claims times passages.
    """

    temperature: float = Field(default=1.0, gt=0)
    max_pairs: int = Field(default=4096, ge=1)


@dataclass(frozen=True, slots=True)
class _Case:
    """The claims and passages of one item: what names each to the caller, and what was left out."""

    claims: tuple[Mapping[str, Any], ...]
    passages: tuple[int, ...]
    dropped: int
    empty: int


@dataclass(frozen=True, slots=True, repr=False)
class NliModel:
    """One checkpoint behind the waist, its labels found by name.

    A pair: raw is the log-odds of entailment, the score is the same of the logits over the
    temperature, and the channels are the calibrated probabilities. Claims: each is held against
    each passage; raw is phi as the formula gives it, the score is phi cut to [-1, 1] (see
    `claims.phi`), and the channels are phi and the shares of the labels. `order` holds the place of
    each of `claims.LABELS` among the logits.
    """

    fingerprint: str
    classifier: Classifier
    order: tuple[int, ...]
    temperature: float
    max_pairs: int
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "NliModel":
        """Read the checkpoint that the card names.

        Raises:
            CardError: an option, a file or a weight does not fit, or the labels are not the three.
        """
        options = card.options_as(NliOptions)
        classifier = Classifier.load(card, files, runtime)
        order = _order(card, classifier.labels)
        parts = {"family": card.family, "version": VERSION, **classifier.fingerprint_parts}
        return cls(fingerprint_of(parts), classifier, order, options.temperature, options.max_pairs)

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """One sequence for a pair; for claims, one for each claim and passage.

        Raises:
            ItemError: the fields do not go together, there is no claim or no evidence, there are
                too many pairs, or a passage is too long.
        """
        (item,) = items
        assert isinstance(item, NliItem)
        match _given(item):
            case ("premise", "hypothesis"):
                passages, claims = [item.premise or ""], [item.hypothesis or ""]
                _require(passages, claims)
                case = None
            case ("evidence", "response") | ("evidence", "claims"):
                case, passages, claims = _case(item)
                self._refuse_too_many(len(claims), len(passages))
            case _:
                raise ItemError("invalid_item", _COMBINATIONS)
        pairs = [(passage, claim) for claim in claims for passage in passages]
        encoded = [self._encoded(passage, claim, options) for passage, claim in pairs]
        cut = sum(one.truncated for one in encoded)
        return Prepared(
            tuple(one.input() for one in encoded),
            case,
            ("truncated",) if cut else (),
            {"truncated_tokens": cut} if cut else {},
        )

    def cost(self, inputs: Sequence[Input]) -> int:
        """See `Classifier.cost`."""
        return self.classifier.cost(inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """The logits of each input, in the checkpoint's order."""
        return self.classifier.logits(inputs)

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """The log-odds of entailment for a pair, phi for claims."""
        logits = [[raw[place] for place in self.order] for raw in raws]
        if prepared.state is None:
            return [self._pair(prepared, logits[0], options)]
        calibrated = [probabilities(self._tempered(row)) for row in logits]
        return [_score_claims(prepared, calibrated, options)]

    def _pair(self, prepared: Prepared, logits: Sequence[float], options: Options) -> Score:
        tempered = self._tempered(logits)
        raw, score = log_odds(logits, 0), log_odds(tempered, 0)
        named = _named(probabilities(tempered))
        details = {**prepared.details, "label": _highest(named), "probabilities": named}
        served = raw if options.raw else score
        channels: dict[str, float] = dict(named.items())
        return Score(served, raw, channels, prepared.flags, details)

    def _tempered(self, logits: Sequence[float]) -> list[float]:
        return [logit / self.temperature for logit in logits]

    def _encoded(self, passage: str, claim: str, options: Options) -> Encoded:
        try:
            return self.classifier.encode_text(passage, claim, options.truncation)
        except ItemError as error:
            if error.code != "input_too_long":
                raise
            hint = f"{error.detail}, or give the evidence as a list of shorter passages"
            raise ItemError(error.code, hint) from None

    def _refuse_too_many(self, claims: int, passages: int) -> None:
        if claims * passages > self.max_pairs:
            raise ItemError(
                "too_many_pairs",
                f"{claims} claims times {passages} passages are over the limit of "
                f"{self.max_pairs} pairs: give fewer passages, or split the item",
            )


def _order(card: ModelCard, labels: Sequence[str]) -> tuple[int, ...]:
    meant = [_ALIASES.get(label.strip().lower()) for label in labels]
    if sorted(meant, key=str) != sorted(LABELS):
        raise CardError(
            f"{card.id}: the labels {', '.join(labels)} are not {', '.join(LABELS)}: "
            "say in options.labels what each logit means"
        )
    return tuple(meant.index(label) for label in LABELS)


def _given(item: NliItem) -> tuple[str, ...]:
    fields = ("premise", "hypothesis", "evidence", "response", "claims")
    return tuple(name for name in fields if getattr(item, name) is not None)


def _case(item: NliItem) -> tuple[_Case, list[str], list[str]]:
    """What is to be scored of evidence with claims or a response, and its passages and claims."""
    evidence = (item.evidence,) if isinstance(item.evidence, str) else item.evidence or ()
    kept = [place for place, passage in enumerate(evidence) if _says_something(passage)]
    names: list[Mapping[str, Any]]
    if item.claims is not None:
        names = [{"index": at} for at, claim in enumerate(item.claims) if _says_something(claim)]
        claims = [item.claims[name["index"]] for name in names]
        dropped = len(item.claims) - len(claims)
    else:
        split = split_claims(item.response or "")
        found = [claim for claim in split.claims if _says_something(claim.text)]
        names = [
            {"index": at, "start": claim.start, "end": claim.end} for at, claim in enumerate(found)
        ]
        claims = [claim.text for claim in found]
        dropped = split.dropped + len(split.claims) - len(found)
    passages = [evidence[place] for place in kept]
    _require(passages, claims)
    case = _Case(tuple(names), tuple(kept), dropped, len(evidence) - len(kept))
    return case, passages, claims


def _require(passages: Sequence[str], claims: Sequence[str]) -> None:
    if not any(map(_says_something, passages)):
        raise ItemError("no_evidence", "the evidence has no letter or digit: nothing can be judged")
    if not any(map(_says_something, claims)):
        raise ItemError(
            "no_claims",
            "there is no claim to judge: none is given, or every sentence of the response has 15 "
            "characters or fewer, or no letter or digit",
        )


def _says_something(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _score_claims(
    prepared: Prepared, calibrated: Sequence[Sequence[float]], options: Options
) -> Score:
    case: _Case = prepared.state
    width = len(case.passages)
    verdicts, told = [], []
    for row, name in enumerate(case.claims):
        held = [_named(one) for one in calibrated[row * width : (row + 1) * width]]
        verdict, account = _judge(held, case.passages)
        verdicts.append(verdict)
        told.append({**name, **account})
    found, parts = phi(verdicts), shares(verdicts)
    channels = {
        "phi": found.clipped,
        "support": parts["entailment"],
        "contradiction": parts["contradiction"],
        "neutral": parts["neutral"],
    }
    details = {
        **prepared.details,
        "claims": told,
        "dropped_claims": case.dropped,
        "empty_passages": case.empty,
    }
    score = found.unclipped if options.raw else found.clipped
    return Score(score, found.unclipped, channels, prepared.flags, details)


def _judge(
    held: Sequence[Mapping[Label, float]], passages: Sequence[int]
) -> tuple[Verdict, dict[str, Any]]:
    """The verdict on one claim, from the passage that decides it, and the account of it.

    A passage that entails decides before one that contradicts, and that before one that is neutral:
    among retrieved passages most have nothing to do with the claim, and a model that learnt from
    captions is quick to call those a contradiction. Among several of a kind the surest decides.
    """
    decisive = max(range(len(held)), key=lambda at: _decisiveness(held[at]))
    label = _highest(held[decisive])
    verdict = Verdict(label, held[decisive][label])
    best = max(range(len(held)), key=lambda at: held[at]["entailment"])
    worst = max(range(len(held)), key=lambda at: held[at]["contradiction"])
    account = {
        "label": verdict.label,
        "confidence": verdict.confidence,
        "passage": passages[decisive],
        "probabilities": held[decisive],
        "best_supported": {"passage": passages[best], "entailment": held[best]["entailment"]},
        "worst_contradicted": {
            "passage": passages[worst],
            "contradiction": held[worst]["contradiction"],
        },
    }
    return verdict, account


def _decisiveness(named: Mapping[Label, float]) -> tuple[int, float]:
    label = _highest(named)
    if label == "neutral":
        return 0, -named["neutral"]
    return (2 if label == "entailment" else 1), named[label]


def _named(values: Sequence[float]) -> dict[Label, float]:
    return dict(zip(LABELS, values, strict=True))


def _highest(named: Mapping[Label, float]) -> Label:
    return max(LABELS, key=lambda label: named[label])
