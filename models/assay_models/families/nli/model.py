"""Claims against evidence: a cross-encoder, read for one pair or for a whole response."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.model import Classifier, ClassifierOptions, Encoded
from assay_models.families.nli.chunking import Chunk, Evidence
from assay_models.families.nli.inputs import Case, Named, case_of, pair_of
from assay_models.families.nli.label_mapping import (
    Reading,
    reading_of,
    refuse_other_names,
    refuse_wrong_order,
)
from assay_models.families.nli.languages import Languages, known_codes
from assay_models.families.nli.verdicts import Asked, Judge
from assay_models.items import NliItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of

VERSION = 2
# Claims of like length share the chunks of their evidence: windows are so many tokens apart.
STEP = 32
# The share of the model's tokens that a claim must leave to its evidence.
LEAST_WINDOW = 1 / 4
_LIBRARIES = ("livekit-blingfire", "py3langid")


class NliOptions(ClassifierOptions):
    """`[options]` of a card of this family, besides what every classifier takes.

    `temperature` divides the logits (Guo et al., 2017, arXiv 1706.04599). `max_pairs` bounds the
    forward passes of one item, claims times chunks of evidence. `chunk_tokens`: the most tokens of
    evidence that are read at once, where that is less than the encoder has room for. `languages`:
    what the checkpoint reads, in ISO 639-1 codes, or `any`. `min_confidence`: a probability below
    which a label is `low_confidence`; under one half it is rather wrong than right. `probes`:
    whether obvious English pairs must come out right before the model is served.
    """

    temperature: float = Field(default=1.0, gt=0)
    max_pairs: int = Field(default=4096, ge=1)
    chunk_tokens: int | None = Field(default=None, ge=16)
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = ("en",)
    min_confidence: float = Field(default=0.5, ge=0, le=1)
    probes: bool = True


@dataclass(frozen=True, slots=True, repr=False)
class NliModel:
    """One checkpoint behind the waist, its labels found by name.

    A pair: raw is the log-odds of entailment, the score is the same of the logits over the
    temperature, and the channels are the calibrated probabilities. Claims: each is held against
    each chunk of each passage; raw is phi as the formula gives it, the score is phi cut to [-1, 1]
    (see `claims.phi`), and the channels are phi, the shares of the labels, and measures of the
    answer. `longest` is the most tokens of evidence read at once.
    """

    fingerprint: str
    classifier: Classifier
    judge: Judge
    languages: Languages
    longest: int
    max_pairs: int
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "NliModel":
        """Read the checkpoint that the card names.

        Raises:
            CardError: an option, a file or a weight does not fit, the labels do not say what the
                logits mean, or obvious pairs are judged wrong.
        """
        options = card.options_as(NliOptions)
        _refuse_unknown(card, options.languages)
        classifier = Classifier.load(card, files, runtime)
        config = classifier.model.config
        refuse_other_names(card, [config.id2label[at] for at in range(config.num_labels)])
        reading = reading_of(card, classifier.labels)
        if options.probes and "en" in options.languages:
            _probe(card, classifier, reading)
        libraries = {name: version(name) for name in _LIBRARIES}
        own = {"family": card.family, "version": VERSION, **libraries}
        room = classifier.renderer.room
        return cls(
            fingerprint_of({**own, **classifier.fingerprint_parts}),
            classifier,
            Judge(reading, options.temperature, options.min_confidence),
            Languages(options.languages),
            min(room, options.chunk_tokens or room),
            options.max_pairs,
        )

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """One sequence for a pair; for claims, one for each claim and chunk of evidence.

        Raises:
            ItemError: the fields do not go together, there is no claim or no evidence, they are in
                a language that the model does not read, there are too many pairs, or a pair or a
                claim is too long.
        """
        (item,) = items
        assert isinstance(item, NliItem)
        pair = pair_of(item, self._reads)
        if pair is not None:
            one = self._pair(*pair, options)
            return Prepared((one.input(),), None, one.flags, one.details)
        return self._prepared(case_of(item, self._reads), options)

    def cost(self, inputs: Sequence[Input]) -> int:
        """See `Classifier.cost`."""
        return self.classifier.cost(inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """The logits of each input, in the checkpoint's order."""
        return self.classifier.logits(inputs)

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """The log-odds of entailment for a pair, phi for claims."""
        if prepared.state is None:
            return [self.judge.pair(prepared, raws[0], options)]
        return [self.judge.claims(prepared, raws, options)]

    def _reads(self, text: str) -> bool:
        """Whether a text is in a language of the model, and most of its tokens are known."""
        if not self.languages.reads(text):
            return False
        tokens = self.classifier.renderer.tokens(text)
        return 2 * tokens.unknown <= len(tokens.places)

    def _pair(self, premise: str, hypothesis: str, options: Options) -> Encoded:
        try:
            return self.classifier.encode_text(premise, hypothesis, options.truncation)
        except ItemError as error:
            if error.code != "input_too_long":
                raise
            hint = f"{error.detail}, or give `evidence` and `claims`: evidence is read in chunks"
            raise ItemError(error.code, hint) from None

    def _prepared(self, case: Case, options: Options) -> Prepared:
        evidence = Evidence(dict(case.passages), lambda text: self._tokens(text))
        self._refuse_too_many(len(case.claims) * len(case.passages))
        self._refuse_too_many(len(case.claims) * (evidence.tokens // self.longest))
        known: dict[str, list[tuple[Chunk, Encoded]]] = {}
        pairs = 0
        for claim in case.claims:
            if claim.text not in known:
                known[claim.text] = list(self._pairs(claim, evidence, options))
            pairs += len(known[claim.text])
            self._refuse_too_many(pairs)
        rows = [row for claim in case.claims for row in known[claim.text]]
        cut = sum(encoded.truncated for _, encoded in rows)
        asked = Asked(
            claims=tuple(
                (claim.name, tuple(chunk for chunk, _ in known[claim.text]))
                for claim in case.claims
            ),
            unread=tuple(case.unread),
            characters=sum(map(len, case.passages.values())),
            guards=case.guards,
        )
        flags = ("truncated", *case.flags) if cut else case.flags
        details = {**({"truncated_tokens": cut} if cut else {}), **case.details}
        return Prepared(tuple(one.input() for _, one in rows), asked, flags, details)

    def _pairs(
        self, claim: Named, evidence: Evidence, options: Options
    ) -> Iterator[tuple[Chunk, Encoded]]:
        """A claim with each chunk, in windows that depend on this claim alone."""
        room = self.classifier.renderer.room
        tokens = len(self._tokens(claim.text))
        least = max(1, int(room * LEAST_WINDOW))
        if tokens > room - least and options.truncation == "error":
            raise ItemError(
                "input_too_long",
                f"claim {claim.name['index']} has {tokens} tokens, the model takes "
                f"{room - least} beside its evidence: shorten it, or set options.truncation",
            )
        exact = min(max(room - tokens, least), self.longest)
        window = min(max(room - -(-tokens // STEP) * STEP, least), self.longest)
        for chunk in evidence.chunks(exact, window):
            text = evidence.text(chunk)
            yield chunk, self.classifier.encode_text(text, claim.text, options.truncation)

    def _tokens(self, text: str) -> Sequence[tuple[int, int]]:
        return self.classifier.renderer.tokens(text).places

    def _refuse_too_many(self, pairs: int) -> None:
        if pairs > self.max_pairs:
            raise ItemError(
                "too_many_pairs",
                f"{pairs} pairs of a claim and a chunk of evidence, or more, are over the limit of "
                f"{self.max_pairs} pairs: give fewer passages, or split the item",
            )


def _refuse_unknown(card: ModelCard, languages: Sequence[str]) -> None:
    unknown = sorted(set(languages) - known_codes())
    if unknown:
        raise CardError(
            f"{card.id}: options.languages: {', '.join(unknown)} cannot be told from others; give "
            "two-letter codes (ISO 639-1), or any"
        )


def _probe(card: ModelCard, classifier: Classifier, reading: Reading) -> None:
    def raws_of(pairs: Sequence[tuple[str, str]]) -> Sequence[Raw]:
        encoded = [classifier.encode_text(*pair, "right") for pair in pairs]
        return classifier.logits([one.input() for one in encoded])

    refuse_wrong_order(card, reading, raws_of)
